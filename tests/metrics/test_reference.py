"""Which metrics need a clean image is told by their signatures."""

from kd_plugins.metrics.reference import needs_reference, without_reference


def test_metrics_with_and_without_reference():
    assert all(map(needs_reference, ("calculate_psnr", "calculate_ssim", "calculate_lpips")))
    assert {"calculate_brisque", "calculate_piqe", "calculate_niqe"} <= set(without_reference())
    assert not needs_reference("no_such_metric") and not needs_reference(["x"])
