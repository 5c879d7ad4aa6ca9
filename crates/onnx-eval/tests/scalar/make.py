"""Writes table.txt: exp, tanh, erf and log at f32 numbers, in f64, from mpmath at 60 digits.

    pip install mpmath==1.3.0
    python make.py

Each line: the function, the bits of x as f64, and the bits of the correctly rounded result as f64.
"""

import random
import struct
from pathlib import Path

import mpmath

mpmath.mp.dps = 60
RANDOM = random.Random(5)
POINTS = 250  # for each function


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bits(x):
    return f"{struct.unpack('<Q', struct.pack('<d', x))[0]:016x}"


def points(low, high):
    """Even over the range, and small ones down to 1e-30, of both signs where the range has them."""
    for _ in range(POINTS * 2 // 3):
        yield f32(RANDOM.uniform(low, high))
    for _ in range(POINTS // 3):
        small = 10 ** RANDOM.uniform(-30, 0)
        yield f32(-small if low < 0 and RANDOM.random() < 0.5 else small)


FUNCTIONS = [
    # as far as f64 has normal numbers
    ("Exp", mpmath.exp, points(-700, 700)),
    # beyond 1 − 2^−53 it is 1
    ("Tanh", mpmath.tanh, points(-20, 20)),
    ("Erf", mpmath.erf, points(-6.5, 6.5)),
    ("Log", mpmath.log, points(1e-6, 1e6)),
]

lines = [f"{name} {bits(x)} {bits(float(function(mpmath.mpf(x))))}" for name, function, xs in FUNCTIONS for x in xs]
Path(__file__).with_name("table.txt").write_text("\n".join(lines) + "\n")
