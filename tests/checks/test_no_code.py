"""What an option file or an entry of `--force_yml` says is data."""

from option_texts import GOOD


def test_an_option_file_and_force_yml_run_no_code(check, tmp_path):
    ran = tmp_path / "ran"
    (line,) = check(GOOD + f"extra: !!python/object/apply:os.mkdir ['{ran}']\n")[:1]
    assert "not a valid option file" in line
    for entry in (
        f"name=!!python/object/apply:os.mkdir ['{ran}']",
        f"name=[__import__('os').mkdir('{ran}')]",
        f"a]=1;__import__('os').mkdir('{ran}')#=2",
    ):
        check(GOOD, entry)
    assert not ran.exists()


def test_numbers_lists_and_new_keys_of_force_yml_are_what_they_look_like(check):
    assert check(GOOD, "train:optim_g:lr=1e-4", "train:optim_g:betas=[0.9, 0.99]", "num_threads=2", code=0)
