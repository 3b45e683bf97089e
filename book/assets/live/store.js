// What the build wrote beside these files: a manifest, pictures, and the weights of the published Records.
// Everything is fetched when it is first asked for, and once.

const HERE = new URL("./data/", import.meta.url);
const fetched = new Map();

/** Methods that know a template and no weights. */
export const CLASSICAL = { LK: { kind: "LK" }, "IC-LK": { kind: "IC-LK" } };

/** A store of pictures and methods; `at` is the folder of the manifest. */
export async function open(at = HERE) {
  const bytes = (name) =>
    once(new URL(name, at), async (response) => response.arrayBuffer());
  const manifest = await once(
    new URL("manifest.json", at),
    async (response) => response.json(),
  );
  return {
    manifest,
    scene: async (name) =>
      scene(manifest.scenes[name], await bytes(manifest.scenes[name].file)),
    method: async (scene, name) =>
      method(manifest.methods[scene][name] ?? CLASSICAL[name], bytes),
    film: async (name) =>
      once(new URL(`${name}.json`, at), async (response) =>
        response.json(),
      ),
  };
}

function once(url, read) {
  if (!fetched.has(url.href)) {
    const answer = fetch(url).then((response) => {
      if (!response.ok)
        throw new Error(
          `${url.pathname} is not there (${response.status})`,
        );
      return read(response);
    });
    answer.catch(() => fetched.delete(url.href));
    fetched.set(url.href, answer);
  }
  return fetched.get(url.href);
}

/**
 * A scene's pictures as bytes, and what turns one of them into the numbers
 * that a network sees.
 */
function scene(about, buffer) {
  const { channels, height, width } = about,
    size = channels * height * width;
  const raw = (i) => new Uint8Array(buffer, i * size, size);
  const image = (bytes) => ({
    channels,
    height,
    width,
    data: prepare(bytes, about),
  });
  return { ...about, raw, image };
}

/**
 * Bytes → numbers: to [0, 1], then to zero mean and unit variance where
 * that is how it was trained.
 */
export function prepare(bytes, { standardize, mean = 0, std = 1 }) {
  if (!standardize)
    return Float32Array.from(bytes, (value) => (value / 255 - mean) / std);
  const average =
    bytes.reduce((sum, value) => sum + value, 0) / bytes.length;
  const variance =
    bytes.reduce((sum, value) => sum + (value - average) ** 2, 0) /
    bytes.length;
  const spread = Math.max(1, Math.sqrt(variance));
  return Float32Array.from(bytes, (value) => (value - average) / spread);
}

async function method(about, bytes) {
  if (!about.file) return about;
  const numbers = new Float32Array(await bytes(about.file));
  let at = 0;
  const take = (n) => numbers.subarray(at, (at += n));
  const stack = (layers) => layers.map((layer) => withWeights(layer, take));
  return {
    ...about,
    predictors: about.predictors.map(stack),
    classifier: stack(about.classifier),
  };
}

function withWeights(layer, take) {
  if (layer.type === "conv") {
    const [kh, kw] = layer.kernel;
    return {
      ...layer,
      weight: take(layer.filters * layer.channels * kh * kw),
      bias: take(layer.filters),
    };
  }
  if (layer.type === "linear")
    return {
      ...layer,
      weight: take(layer.units * layer.inputs),
      bias: take(layer.units),
    };
  return layer;
}
