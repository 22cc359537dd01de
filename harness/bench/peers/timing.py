"""Contestants in captured CUDA graphs (or called from the host), taking turns."""
import torch

GRAPH_TARGET_MS = 3.0


def graph_of(functions):
    """One graph that runs each function once, in order."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        functions[0]()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for f in functions:
            f()
    return graph


class Calls:
    """The functions called one by one, as a program without graphs does: with short kernels it is
    the host that lasts."""

    def __init__(self, functions):
        self.functions = functions

    def replay(self):
        for f in self.functions:
            f()


def time_graphs(graphs, per_graph, rounds):
    """{name: ([microseconds of one call, one for each round], replays)}, the contestants taking
    turns, so that a clock that moves moves for all."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def once(graph, replays):
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / replays

    replays = {}
    for name, graph in graphs.items():
        once(graph, 1)
        replays[name] = max(1, min(200, int(GRAPH_TARGET_MS / max(once(graph, 1), 1e-3))))
    times = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, graph in graphs.items():
            times[name].append(once(graph, replays[name]) * 1e3 / per_graph)
    return {name: (times[name], replays[name]) for name in graphs}
