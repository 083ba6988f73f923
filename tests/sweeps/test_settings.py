"""Which runs a sweep has, and which of them are one program."""

import jax
import pytest

import jtrust
from jtrust.cli import lists
from jtrust.sweeps import settings
from jtrust.sweeps.members import Member, changed, changes, grouped, hyperparameters
from jtrust.sweeps.settings import Base

SMALL = dict(num_envs=8, unroll_length=4)


def members(point, *combos, algorithm=None, **options):
    base = Base(point, settings.named_algorithms(algorithm or jtrust.TRPO()), SMALL | options)
    return [
        Member(settings.member_name(c, 0), 0, c, base.trainer(c, jax.devices()[:1]), None)
        for c in combos
    ]


def test_lists_are_crossed_or_taken_side_by_side():
    varied = {"max_kl": [0.01, 0.02], "discount": [0.9, 0.99]}
    assert settings.combinations(varied, crossed=True) == [
        {"max_kl": 0.01, "discount": 0.9}, {"max_kl": 0.01, "discount": 0.99},
        {"max_kl": 0.02, "discount": 0.9}, {"max_kl": 0.02, "discount": 0.99},
    ]
    assert settings.combinations(varied, crossed=False) == [
        {"max_kl": 0.01, "discount": 0.9}, {"max_kl": 0.02, "discount": 0.99},
    ]
    assert settings.combinations({}, crossed=True) == [{}]
    assert settings.combinations({}, crossed=False) == [{}]


def test_layers_are_one_value_and_a_list_of_them_several():
    assert settings.as_values("policy_layers", (64, 64)) is None
    assert settings.as_values("policy_layers", [[64, 64], (8,)]) == [(64, 64), (8,)]
    assert settings.as_values("max_kl", 0.1) is None
    assert settings.seeds_of(3, 5) == [5, 6, 7] and settings.seeds_of([4, 2]) == [4, 2]


def test_names_are_directories_that_say_what_differs():
    name = settings.member_name({"max_kl": 0.01, "policy_layers": (64, 32)}, 3)
    assert name == "max_kl=0.01,policy_layers=64x32,seed=3"
    assert "/" not in settings.member_name({"activation": "../../x"}, 0)


def test_numbers_share_a_program_and_shapes_do_not(point):
    some = members(
        point, {"max_kl": 0.01}, {"max_kl": 0.02}, {"cg_iterations": 4}, {"policy_layers": (8,)},
        {"max_kl": 0.03, "policy_layers": (8,)}, {"num_envs": 16}, {"max_kl_std": 0.001},
    )
    groups = grouped(some)
    assert [[some.index(m) for m in g.members] for g in groups] == [
        [0, 1], [2], [3, 4], [5], [6],
    ]
    leaves = jax.tree_util.tree_leaves_with_path(hyperparameters(some[0].trainer))
    names = [leaves[i][0][-1].name for i in groups[0].varied]
    assert names == ["max_kl"]
    assert [float(groups[0].values(m)[0]) for m in groups[0].members] == pytest.approx(
        [0.01, 0.02]
    )
    assert groups[1].varied == ()


def test_settings_reach_the_part_that_reads_them(point):
    one, = members(point, {"discount": 0.9, "value_damping": 0.5, "value_lambda": 0.7})
    assert one.trainer.gae.discount == 0.9
    assert one.trainer.value_fit.damping == 0.5 and one.trainer.value_fit.td_lambda == 0.7
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), devices=1, **SMALL)
    again = Base(trainer, {"trpo": trainer.algorithm}, {}).trainer(
        {"discount": 0.9, "value_damping": 0.5, "max_kl": 0.3}, None
    )
    assert again.gae.discount == again.algorithm.discount == 0.9
    assert again.value_fit.damping == 0.5 and again.algorithm.max_kl == 0.3
    assert again.environment is trainer.environment


def test_a_configuration_is_told_by_its_changes(point):
    from jtrust.runs.config import RunConfig

    def config(algorithm, seed):
        trainer = jtrust.make_trainer(point, algorithm, devices=1, **SMALL)
        return RunConfig.describe(trainer, seed=seed, total_steps=64, checkpoint_every=1)

    import dataclasses

    base = config(jtrust.TRPO(), 0)
    for other in (
        config(jtrust.TRPO(max_kl=0.02), 3), config(jtrust.PPO(clip=0.1), 0), base,
    ):
        found = changes(base, other)
        assert changed(dataclasses.asdict(base), found) == dataclasses.asdict(other)
    assert changes(base, config(jtrust.TRPO(max_kl=0.02), 3)) == {
        "hyperparameters": {"max_kl": 0.02}, "seed": 3,
    }


def test_the_command_line_reads_every_kind_of_setting():
    kind = lists.lists_of(["ppo"])
    given = kind(
        clip=("0.1", "0.2"), adaptive=("True", "False"), epochs=("2",), minibatches=("None", "4"),
        policy_layers=("64,64", "8"), activation=("relu",), max_kl=("0.01:0.1:log",),
    )
    assert lists.values_of(given, ["ppo"]) == {
        "clip": [0.1, 0.2], "adaptive": [True, False], "epochs": [2], "minibatches": [None, 4],
        "policy_layers": [(64, 64), (8,)], "activation": ["relu"],
        "max_kl": [lists.Range(0.01, 0.1, True)],
    }


@pytest.mark.parametrize("name, text, said", [
    ("clip", "wide", "must be a number"), ("epochs", "2.5", "must be a whole number"),
    ("adaptive", "yes", "choose from"), ("policy_layers", "64x64", "must be a whole number"),
    ("max_kl", "0.1:0.01", "low end below"), ("max_kl", "0:1:log", "above 0"),
    ("max_kl", "0.1:1:lin", "LOW:HIGH"), ("max_kl", "0.1:inf", "low end below"),
    ("max_kl", "nan:1", "low end below"),
])
def test_values_that_cannot_be_read(name, text, said):
    given = lists.lists_of(["ppo"])(**{name: (text,)})
    with pytest.raises(jtrust.BadArgument, match=said):
        lists.values_of(given, ["ppo"])


@pytest.mark.parametrize("arguments, said", [
    (dict(max_kl=[]), "max_kl=.*at least one value"),
    (dict(seeds=[]), "seeds=.*at least one value"),
    (dict(seeds=[1, 1]), "seeds=1: is in the list twice"),
    (dict(max_kl=[0.1, 0.1]), "max_kl=0.1: is in the list twice"),
    (dict(max_kl=[0.1, -1.0]), "max_kl=-1.0: must be"),
    (dict(clip=[0.1, 0.2]), "clip=.*trpo has no such setting"),
    (dict(num_envs=[8, 0]), "num_envs=0"),
    (dict(network=[jtrust.NetworkConfig()]), "network=.*one for the whole sweep"),
    (dict(algorithm=[jtrust.TRPO(), jtrust.TRPO()]), "algorithm='trpo': is in the list twice"),
    (dict(algorithm=[]), "algorithm=.*at least one"),
    (dict(algorithm="trpo"), "algorithm='trpo': must be an algorithm"),
    (dict(zip=True, max_kl=[0.1, 0.2], discount=[0.9, 0.95, 0.99]), "2 max_kl, 3 discount"),
    (dict(at_once=0), "at_once=0"), (dict(devices=1000), "devices=1000"),
    (dict(evaluate_every=0), "evaluate_every=0"), (dict(total_steps=0), "total_steps=0"),
])
def test_what_will_not_do_is_one_line(point, arguments, said):
    with pytest.raises(jtrust.BadArgument, match=said) as raised:
        jtrust.train_many(point, **{"total_steps": 32, "seeds": 1, **SMALL, **arguments})
    assert "\n" not in str(raised.value)


def test_a_trainer_keeps_its_own_program(point):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), devices=1, **SMALL)
    for name, value in (("num_envs", [8, 16]), ("policy_layers", [[8], [4]])):
        with pytest.raises(jtrust.BadArgument, match=f"{name}=.*the trainer has its own"):
            jtrust.train_many(trainer, total_steps=32, **{name: value})
    with pytest.raises(jtrust.BadArgument, match=r"algorithm=.*the trainer has its own"):
        jtrust.train_many(trainer, jtrust.TRPO(), total_steps=32)
