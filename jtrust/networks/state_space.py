"""S5: a diagonal linear state space as memory, computed for all steps at once.

Smith, Warrington and Linderman, 2023 (arXiv:2208.04933); with resets where episodes begin as in Lu
et al., 2023 (arXiv:2303.03982). Complex numbers are pairs of real ones (re, im) throughout, so that
derivatives, carries and exported policies know real numbers alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Any
Complex = tuple[jax.Array, jax.Array]

# Δ, by which continuous time is cut into steps, is drawn between these, evenly in its logarithm.
_LEAST_STEP, _LARGEST_STEP = 0.001, 0.1
# No eigenvalue has a larger real part: what is remembered fades.
_LEAST_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class S5:
    """One layer: x_t = Λ̄ x_{t-1} + B̄ u_t, y_t = 2 Re(C x_t) + D u_t, behind it a gate.

    Λ̄ = exp(ΛΔ) and B̄ = Λ⁻¹ (Λ̄ - I) B are the continuous system under a zero-order hold
    (equation 5); of each pair of conjugate states one is kept (section 3.2). The output is
    u + g ∘ sigmoid(W g + b) with g = gelu(y).

    Attributes:
      size: real numbers of the state, P; P / 2 complex ones.
    """

    size: int

    def init(self, key: jax.Array, u: jax.Array) -> Params:
        """Λ, B and C from the normal part of HiPPO-LegS (section 3.2 and appendix B.1)."""
        width, half = u.shape[-1], self.size // 2
        eigenvalues, vectors = hippo_normal(self.size)
        keys = jax.random.split(key, 5)
        lecun = jax.nn.initializers.lecun_normal()
        into = lecun(keys[0], (width, self.size)).T  # [P, H], of fan-in H
        out = jax.random.normal(keys[1], (2, width, self.size)) * (0.5 / self.size) ** 0.5
        inverse = np.conj(vectors.T)
        low, high = np.log(_LEAST_STEP), np.log(_LARGEST_STEP)
        of_out = _product((out[0], out[1]), (jnp.asarray(vectors.real), jnp.asarray(vectors.imag)))
        return {
            "decay": jnp.asarray(eigenvalues.real, jnp.float32),
            "frequency": jnp.asarray(eigenvalues.imag, jnp.float32),
            "B": jnp.stack([inverse.real @ into, inverse.imag @ into]).astype(jnp.float32),
            "C": jnp.stack(of_out).astype(jnp.float32),
            "D": jax.random.normal(keys[2], (width,)),
            "log_step": jax.random.uniform(keys[3], (half,), minval=low, maxval=high),
            "gate": {
                "kernel": lecun(keys[4], (width, width)), "bias": jnp.zeros((width,), jnp.float32)
            },
        }

    def initial_carry(self, batch_shape: tuple[int, ...]) -> Complex:
        zero = jnp.zeros((*batch_shape, self.size // 2), jnp.float32)
        return zero, zero

    def step(self, params: Params, carry: Complex, u: jax.Array) -> tuple[jax.Array, Complex]:
        transition, into = discretized(params)
        moved, driven = _times(transition, carry), (u @ into[0].T, u @ into[1].T)
        carry = (moved[0] + driven[0], moved[1] + driven[1])
        return _output(params, carry, u), carry

    def unroll(
        self, params: Params, carry: Complex, u: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, Complex]:
        """All steps by one associative scan; where an episode begins the transition is zero, which
        is what the operator with resets of Lu et al. comes to where the initial state is."""
        transition, into = discretized(params)
        goes_on = 1.0 - starts.astype(jnp.float32)[..., None]  # [T, N, 1]
        along = (goes_on * transition[0], goes_on * transition[1])
        driven = [u @ part.T for part in into]
        before = _times((along[0][0], along[1][0]), carry)
        driven = [d.at[0].add(b) for d, b in zip(driven, before, strict=True)]

        def compose(first: tuple, then: tuple) -> tuple:
            (a, b), (c, d) = first, then
            moved = _times(c, b)
            return _times(c, a), (moved[0] + d[0], moved[1] + d[1])

        _, states = jax.lax.associative_scan(compose, (along, tuple(driven)))
        return _output(params, states, u), (states[0][-1], states[1][-1])


def discretized(params: Params) -> tuple[Complex, Complex]:
    """(Λ̄ [P/2], B̄ [P/2, H]) under a zero-order hold (arXiv:2208.04933, equation 5)."""
    decay = jnp.minimum(params["decay"], -_LEAST_DECAY)
    frequency, step = params["frequency"], jnp.exp(params["log_step"])
    size, angle = jnp.exp(decay * step), frequency * step
    transition = (size * jnp.cos(angle), size * jnp.sin(angle))
    # (Λ̄ - 1) / Λ
    norm = decay**2 + frequency**2
    inverse = (decay / norm, -frequency / norm)
    held = _times(inverse, (transition[0] - 1.0, transition[1]))
    into = _times((held[0][:, None], held[1][:, None]), (params["B"][0], params["B"][1]))
    return transition, into


def _output(params: Params, state: Complex, u: jax.Array) -> jax.Array:
    out = params["C"]
    y = 2.0 * (state[0] @ out[0].T - state[1] @ out[1].T) + params["D"] * u
    g = jax.nn.gelu(y)
    gate = params["gate"]
    return u + g * jax.nn.sigmoid(g @ gate["kernel"] + gate["bias"])


def hippo_normal(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [P/2] and eigenvectors [P, P/2] of the normal part of HiPPO-LegS.

    A_nk = -sqrt((2n+1)(2k+1)) for n > k and -(n+1) for n = k; its normal part is A + p pᵀ with
    p_n = sqrt(n + 1/2) (arXiv:2208.04933, appendix B.1.1).
    """
    n = np.arange(size)
    root = np.sqrt(1.0 + 2.0 * n)
    matrix = -np.tril(root[:, None] * root[None], -1) - np.diag(n + 1.0)
    low_rank = np.sqrt(n + 0.5)
    normal = matrix + low_rank[:, None] * low_rank[None]
    real = np.mean(np.diag(normal))
    imaginary, vectors = np.linalg.eigh((normal - real * np.eye(size)) * -1j)
    half = size // 2
    return real + 1j * imaginary[:half], vectors[:, :half]


def _times(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _product(a: Complex, b: Complex) -> Complex:
    return a[0] @ b[0] - a[1] @ b[1], a[0] @ b[1] + a[1] @ b[0]
