"""Makes the .npz files beside it: pip install numpy==2.4.6; python make.py"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ARRAYS = dict(
    ids=np.array([[1, -2], [3, 4]], dtype=np.int64),
    mask=np.array([True, False, True]),
    scalar=np.float32(1.5),
    empty=np.zeros((0, 3)),
    half=np.array([0.5], dtype=np.float16),
)
np.savez(HERE / "plain.npz", **ARRAYS)
np.savez_compressed(HERE / "compressed.npz", **ARRAYS)
np.savez(HERE / "ids.npz", ids=ARRAYS["ids"])
np.savez(HERE / "out.npz", out=ARRAYS["ids"])
np.savez(HERE / "fortran.npz", x=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
np.savez(HERE / "strings.npz", x=np.array(["a"]))
