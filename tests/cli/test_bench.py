def test_bench_shows_ratios_and_agreement(cli, model, data):
    result = cli("bench", model, model, "--data", data, "--rounds", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("100.00% same class") == 2
    assert "medians of 2 interleaved rounds, inputs from the data" in result.stdout


def test_bench_json(cli, model, data, only_json):
    document = only_json(cli("bench", model, "--data", data, "--rounds", "2", "--json"))
    assert document["timings"][0]["ratio"] == 1.0
    assert document["timings"][0]["accuracy"] == 1.0


def test_bench_without_data(cli, model):
    result = cli("bench", model, "--rounds", "2", "--threads", "2", "--batch", "4")
    assert result.exit_code == 0, result.output
    assert "2 thread(s), batch 4" in result.stdout
    assert "random inputs" in result.stdout


def test_bench_of_bad_numbers(cli, model):
    assert cli("bench", model, "--rounds", "0").exit_code == 2
