"""Balances MuJoCo's cart-pole with an exported policy: numpy, mujoco and onnxruntime, no JAX.

    jtrust export checkpoints/pretrained/CartpoleBalance --format onnx
    python examples/mujoco_policy.py CartpoleBalance.onnx XMLS/cartpole.xml [--no-viewer]

XMLS is mujoco_playground/_src/dm_control_suite/xmls of an installed MuJoCo Playground.
"""

import argparse
import contextlib
import time

import mujoco
import numpy as np
import onnxruntime


def observe(data):
    """As Playground's CartpoleBalance does: where the cart is, cos and sin of the pole, speeds."""
    pole = data.xmat[2].reshape(3, 3)
    return np.array([data.qpos[0], pole[2, 2], pole[0, 2], *data.qvel], np.float32)


def reward(data, action):
    """Playground's: upright, centred, without effort, still; 1 at most."""
    upright = (data.xmat[2].reshape(3, 3)[2, 2] + 1) / 2
    centred = (1 + 0.1 ** ((data.qpos[0] / 2) ** 2)) / 2
    small_control = (4 + max(1 - action[0] ** 2, 0)) / 5
    return upright * centred * small_control * (1 + 0.1 ** ((data.qvel[1] / 5) ** 2)) / 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("policy")
    parser.add_argument("model")
    parser.add_argument("--no-viewer", action="store_true")
    parser.add_argument("--episodes", type=int, default=1)
    options = parser.parse_args()
    policy = onnxruntime.InferenceSession(options.policy, providers=["CPUExecutionProvider"])
    model = mujoco.MjModel.from_xml_path(options.model)
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    shown = contextlib.nullcontext()
    if not options.no_viewer:
        from mujoco import viewer

        shown = viewer.launch_passive(model, data)
    with shown as window:
        for _ in range(options.episodes):
            mujoco.mj_resetData(model, data)
            data.qpos[:] = random.uniform([-0.1, -0.034], [0.1, 0.034])
            data.qvel[:] = 0.01 * random.standard_normal(2)
            mujoco.mj_forward(model, data)
            total = 0.0
            for _ in range(1000):  # ten seconds
                (action,) = policy.run(["actions"], {"observations": observe(data)[None]})[0]
                data.ctrl[:] = action
                mujoco.mj_step(model, data)
                total += reward(data, action)
                if window is not None:
                    window.sync()
                    time.sleep(model.opt.timestep)
            print(f"return {total:.3f} of 1000")


if __name__ == "__main__":
    main()
