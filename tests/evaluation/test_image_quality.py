"""PSNR and SSIM against scikit-image."""

import numpy as np
import pytest
import vqgan_cases as cases

from jaxformers.errors import DataError
from jaxformers.evaluation.image_quality import psnr, ssim


def test_psnr_and_ssim_are_those_of_scikit_image():
    golden, pair = np.load(cases.OUTPUTS), cases.quality_images()
    np.testing.assert_allclose(psnr(*pair), golden["quality/psnr"], rtol=1e-9)
    np.testing.assert_allclose(ssim(*pair), golden["quality/ssim"], rtol=1e-6)
    assert ssim(pair[0], pair[0]).tolist() == [1.0] * 3
    assert np.isinf(psnr(pair[0], pair[0])).all()


def test_images_of_other_shapes_are_refused():
    with pytest.raises(DataError, match="differ in shape"):
        psnr(np.zeros((1, 12, 12, 3)), np.zeros((1, 12, 13, 3)))
    with pytest.raises(DataError, match="10 x 12 pixels are smaller than SSIM's window of 11"):
        ssim(np.zeros((1, 10, 12, 3)), np.zeros((1, 10, 12, 3)))
