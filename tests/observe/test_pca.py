"""The plane in which points spread most: its axes and its shares."""

import torch

from minisd.observe.pca import principal_plane


def test_the_plane_holds_most_of_the_variance() -> None:
    points = torch.randn(40, 6) * torch.tensor([0.1, 5.0, 0.2, 3.0, 0.1, 1.0]) + 7
    plane = principal_plane(points)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2), atol=1e-5, rtol=0)
    on = plane.project(points)
    torch.testing.assert_close(on.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    share = on.square().sum(0) / (points - points.mean(0)).square().sum()
    torch.testing.assert_close(plane.shares, share)
    assert plane.shares[0] > plane.shares[1] and plane.shares.sum() > 0.9
    assert plane.axes.abs().argmax(1).tolist() == [1, 3]
    best = torch.linalg.eigvalsh(torch.cov(points.T)).flip(0)[:2]
    torch.testing.assert_close(on.var(0), best, rtol=1e-3, atol=0)


def test_the_same_points_always_give_the_same_map() -> None:
    points = torch.randn(9, 5)
    for turned in (points.flip(0), points + 3, -points):
        torch.testing.assert_close(principal_plane(turned).axes, principal_plane(points).axes,
                                   atol=1e-4, rtol=0)
