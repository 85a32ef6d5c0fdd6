from kd_plugins.report.logs import read_course

LOG = """2026-11-27 09:35:36,679 INFO: kd_plugins 1, BasicSR 1.4.2
2026-11-27 09:35:39,160 INFO: [tiny..][epoch:  0, iter:   1,000, lr:(1.978e-03,)] [eta: 0:00:22, time (data): 0.4 (0.0)] TERMS
2026-11-27 09:35:41,316 INFO: [tiny..][epoch:  0, iter:   2,000, lr:(1.891e-03,)] l_pix: 2.0000e-02
2026-11-27 09:35:45,352 INFO: 
Validation my photos at 2003
  metric     input   student   teacher       gap   best @ iteration
 ───────────────────────────────────────────────────────────────────
  psnr     27.6792   32.8596   39.6008   -6.7412   32.8596 @ 2000
2026-11-27 09:35:46,352 INFO: Saving models and training states.
""".replace("TERMS", "l_pix: 2.5000e-02 l_hint: 5.0000e-01 trust/kl: 9.0000e-01 ")


def test_losses_their_sum_the_trust_and_the_scores_are_read(tmp_path):
    (tmp_path / "train_tiny_1.log").write_text(LOG)
    course = read_course(tmp_path)
    assert course.losses["l_pix"] == {1000: 0.025, 2000: 0.02} and course.losses["l_hint"] == {1000: 0.5}
    assert course.losses["total"] == {1000: 0.525, 2000: 0.02}
    assert course.trust == {"kl": {1000: 0.9}} and course.steps == 2003
    assert course.scores["my photos"]["psnr"] == {"input": {2003: 27.6792}, "student": {2003: 32.8596}, "teacher": {2003: 39.6008}}


def test_of_a_run_that_went_on_from_an_earlier_state_the_later_values_count(tmp_path):
    (tmp_path / "train_tiny_1.log").write_text(LOG)
    (tmp_path / "train_tiny_2.log").write_text(LOG.replace("2.0000e-02", "1.0000e-02").replace("iter:   1,000", "iter:   3,000"))
    assert read_course(tmp_path).losses["l_pix"] == {1000: 0.025, 2000: 0.01, 3000: 0.025}


def test_a_folder_without_a_log_has_no_course(tmp_path):
    assert not read_course(tmp_path).losses


def test_a_loss_that_stays_broken_is_named_and_one_that_recovers_is_not(tmp_path):
    (tmp_path / "train_tiny_1.log").write_text(LOG.replace("l_hint: 5.0000e-01", "l_hint: inf"))
    assert read_course(tmp_path).broken == ""
    (tmp_path / "train_tiny_1.log").write_text(LOG.replace("2.0000e-02", "nan"))
    assert read_course(tmp_path).broken == "The loss is not finite from iteration 2000 on, as far as it is logged: l_pix is nan."
