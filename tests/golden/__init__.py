"""The experiments a second time, plainly, from the paper and the documented rules, without icstn.

What a number rests on is here once more in float64 and without a thought for speed: which draws are made, how
the image is sampled, what a network computes, how it is trained and how it is tested. The tests named
``test_golden_…`` hold the library against it.
"""
