"""Features of two networks, and the plain formulas of the attention between them."""

import torch


def plain_spatial(t, s, v, divisor):
    t, s, v = (x.flatten(2) for x in (t, s, v))
    return v @ torch.softmax(t.mT @ s / divisor, dim=-1).mT


def plain_channel(t, s, v, divisor):
    t, s, v = (x.flatten(2) for x in (t, s, v))
    return torch.softmax(t @ s.mT / divisor, dim=-1) @ v


def features(n=2, c_t=6, c_s=4, height=9, width=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, n, c_t, height, width, generator=generator, dtype=dtype)
    return student, teacher, torch.randn(n, c_s, height, width, generator=generator, dtype=dtype)


def exact(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
