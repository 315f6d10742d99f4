"""A study: its total, what a kill leaves, points that are never tried twice, what is refused."""

import csv
import signal

import optuna
import pytest
from hydra.errors import ConfigCompositionException
from optuna.trial import Trial, TrialState

from fwi_lightning.errors import UserError
from fwi_lightning.sweep.storage import only_one
from tests.sweep.conftest import distinct


def test_the_number_of_trials_is_the_total(sweep):
    sweep.run(n_trials=3)
    sweep.run(n_trials=5, n_jobs=2)
    assert sweep.states() == ["COMPLETE"] * 5
    sweep.run(n_trials=5)
    trials = sweep.study().trials
    assert len(trials) == distinct(trials) == 5
    for trial in trials:
        assert trial.value == pytest.approx((trial.params["x"] - 0.3) ** 2 + 0.01 * trial.params["width"])
        assert (sweep.folder / f"trial_{trial.number}" / "process").is_file()
    rows = list(csv.DictReader((sweep.folder / "trials.csv").open()))
    assert [float(row["loss"]) for row in rows] == [trial.value for trial in trials]
    assert {path.name for path in (sweep.folder / "figures").iterdir()} == {
        "history.png",
        "importance.png",
        "slices.png",
    }
    assert "Sweep default" in (sweep.folder / "report.html").read_text()


def test_killed_and_resumed_it_ends_with_all_trials_and_no_point_twice(sweep, tmp_path):
    process = sweep.start("seconds=0.2", n_trials=12)
    for line in process.stdout:
        if line.startswith("trial 4 "):
            break
    # The next trial runs as soon as its folder is there.
    while not (sweep.folder / "trial_5" / "process").is_file():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sweep.states().count("RUNNING") == 1
    cut = sweep.study().trials[-1].params

    sweep.run(n_trials=12)
    trials = sweep.study().trials
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == distinct(complete) == 12
    assert [trial.state.name for trial in trials if trial not in complete] == ["FAIL"]
    assert complete[5].params == cut, "the trial that was cut short is done again first"
    points = [trial.params for trial in complete]

    (sweep.folder / "study.db").unlink()
    sweep.run(n_trials=12)
    assert [trial.params for trial in sweep.study().trials] == points, "a kill does not change what is searched"


def test_a_trial_killed_twice_is_owed_once(sweep):
    sweep.run(n_trials=2)
    study = sweep.study()
    for _ in range(2):
        point = study.trials[0].params | {"x": 0.5}
        left = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=point, distributions=study.trials[0].distributions
        )
        left.datetime_start, left.datetime_complete = study.trials[0].datetime_start, None
        study.add_trial(left)
    sweep.run(n_trials=4)
    assert sorted(sweep.states()) == ["COMPLETE"] * 4 + ["FAIL"] * 2
    assert [trial.params["x"] for trial in study.trials if trial.state == TrialState.COMPLETE].count(0.5) == 1


def test_a_second_start_at_the_same_time_is_refused(sweep):
    sweep.folder.mkdir()
    with only_one(sweep.folder), pytest.raises(UserError, match=r"is running: wait for it"):
        sweep.run()


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["space.x.high=2.0"], "x was 0.0 to 1.0, now 0.0 to 2.0"),
        (["space.width=[1,2]"], "width was 1, 2 or 3, now 1 or 2"),
        (["width=1"], "width was 1, 2 or 3, now not searched"),
        (["kind=plain,other"], "kind was not searched, now plain or other"),
        (["direction=maximize"], "direction was minimize, now maximize"),
    ],
)
def test_a_changed_search_is_refused_with_the_difference(sweep, words, difference):
    sweep.run(n_trials=1)
    words = [word if word.startswith(("width", "kind")) else f"hydra.sweeper.{word}" for word in words]
    with pytest.raises(UserError) as caught:
        sweep.run(*words, n_trials=2)
    assert str(caught.value) == (
        f"the study 'default' was begun with another search: {difference}. Repeat it as it was, or begin a new one "
        "with hydra.sweeper.study_name=NAME."
    )
    assert sweep.states() == ["COMPLETE"]


def test_a_finite_space_is_searched_through_and_no_further(sweep, capsys):
    sweep.run("x=0.1,0.2", n_trials=20, n_jobs=4)
    trials = sweep.study().trials
    assert len(trials) == distinct(trials) == 6
    assert "the search space has 6 points and all were tried" in capsys.readouterr().out


def test_words_of_the_command_line_are_searched(sweep):
    sweep.run("kind=plain,other", "x=interval(0.2,0.4)", "width=2", n_trials=3)
    trials = sweep.study().trials
    assert set(trials[0].params) == {"kind", "x"}
    for trial in trials:
        penalty = {"plain": 0.0, "other": 1.0}[trial.params["kind"]]
        assert trial.value == pytest.approx((trial.params["x"] - 0.3) ** 2 + 0.02 + penalty)


def test_failing_trials_are_marked_and_the_sweep_goes_on(sweep):
    sweep.run("fail=sometimes", n_trials=8, max_failures=8)
    trials = sweep.study().trials
    assert len(trials) == 8
    assert {trial.state.name for trial in trials} == {"COMPLETE", "FAIL"}
    for trial in trials:
        assert (trial.state.name == "FAIL") == (trial.params["width"] > 1)
    errors = {row["error"] for row in csv.DictReader((sweep.folder / "trials.csv").open())}
    assert errors == {"", "this point cannot be tried."}


@pytest.mark.parametrize(("fail", "message"), [("always", "cannot be tried"), ("none", "score is None")])
def test_a_sweep_that_only_fails_stops(sweep, fail, message):
    with pytest.raises(UserError, match=message):
        sweep.run(f"fail={fail}", n_trials=9, max_failures=2)
    assert sweep.states() == ["FAIL", "FAIL"]


def test_hopeless_trials_are_pruned(sweep):
    sweep.run("validations=4", n_trials=12)
    states = sweep.states()
    assert states.count("COMPLETE") >= 4
    assert "PRUNED" in states
    assert len(states) == 12
    pruned = [trial for trial in sweep.study().trials if trial.state == TrialState.PRUNED]
    assert all(len(trial.intermediate_values) < 4 for trial in pruned)


def test_a_journal_holds_a_study_too(sweep):
    url = f"journal:///{sweep.folder}/log"
    sweep.run(n_trials=2, storage=url)
    sweep.run(n_trials=3, storage=url)
    from fwi_lightning.sweep.storage import open_storage

    assert len(sweep.study(storage=open_storage(url)).trials) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n_trials=0"], "hydra.sweeper.n_trials must be at least 1, got 0"),
        (["direction=down"], "hydra.sweeper.direction must be minimize or maximize, got 'down'"),
        (["space.x.high=0.0"], "x.low must be below x.high, got 0.0 and 0.0"),
        (["+space.x.hihg=3"], "the range x has 'hihg': it takes low, high, log, step"),
        (["space.x.low=abc"], "x is a range of numbers"),
        (["space.x=3"], "x must be choices, [a, b], or a range"),
        (["space.width=[1,1]"], "width needs choices that differ"),
        (["+space.x.log=true"], "hydra.sweeper.space: x: "),
        (["space.x=null", "space.width=null"], "there is nothing to search"),
        (["storage=postgresql://me:secret@nowhere.invalid/x"], "the storage postgresql://me:***@nowhere"),
        (["storage=nonsense"], "the storage nonsense cannot be opened"),
    ],
)
def test_a_mistake_gets_one_sentence_and_no_trial(sweep, words, message):
    prefixed = [word[0] + "hydra.sweeper." + word[1:] if word[0] == "+" else f"hydra.sweeper.{word}" for word in words]
    with pytest.raises(UserError) as caught:
        sweep.run(*prefixed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not list(sweep.folder.glob("trial_*"))


def test_a_setting_that_does_not_exist_is_found_before_any_trial(sweep):
    with pytest.raises(ConfigCompositionException, match="Could not override 'depth'"):
        sweep.run("+hydra.sweeper.space.depth=[1,2]")
    assert not sweep.folder.exists()


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_trials_run_in_parallel_processes(sweep, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    sweep.run(f"hydra/launcher={launcher}", "validations=2", n_trials=2, n_jobs=2)
    assert sweep.states() == ["COMPLETE", "COMPLETE"]
    processes = {path.read_text() for path in sweep.folder.glob("trial_*/process")}
    assert len(processes) == 2
    assert all(len(trial.intermediate_values) == 2 for trial in sweep.study().trials)


def test_what_a_user_queued_or_did_elsewhere_is_seen(sweep):
    sweep.run(n_trials=2)
    study = sweep.study()
    asked = study.ask(study.trials[0].distributions)
    Trial(study, asked._trial_id).set_user_attr("by", "hand")
    study.tell(asked, 0.001)
    sweep.run(n_trials=3)
    assert sweep.states() == ["COMPLETE"] * 3
