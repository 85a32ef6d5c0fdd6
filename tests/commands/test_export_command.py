"""`basicsr export`: one file, said how near it is."""

from kd_plugins.cli import main

MODEL = "{type: NAFNet, width: 4, middle_blk_num: 1, checkpoint: %s}"


def test_a_model_is_written_compared_and_not_overwritten(tmp_path, capsys):
    import torch

    from kd_plugins.archs.nafnet_arch import NAFNet

    torch.save(NAFNet(width=4).state_dict(), tmp_path / "net.pth")
    words = ["export", "-m", MODEL % (tmp_path / "net.pth"), "-o", str(tmp_path / "s.pt")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "s.pt: 0." in said and "any height and width" in said
    assert all(f"{size}: the same bits" in said for size in ("481x321", "100x130", "64x64"))
    assert main(words) == 2 and "is there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_a_model_that_is_not_there_leaves_nothing(tmp_path, capsys):
    assert main(["export", "-m", "restormer_derian", "-o", str(tmp_path / "s.pt")]) == 2
    assert "restormer_derain" in capsys.readouterr().err and not list(tmp_path.iterdir())
