// On every page of the book: loads what the page shows, and nothing where it shows nothing.
if (document.querySelector("icstn-film")) import("./film.js");
if (document.querySelector("icstn-live")) import("./live.js");
