"""Recorded calls: what the modes graph and graph_replay launch."""


class TorchGraph:
    """A call recorded by torch.cuda.CUDAGraph: @backend(graph=TorchGraph). Replayed with another
    problem in the same tensors.

    The function calls problem.to("torch", "cuda") as ever and gets tensors that stay where they are.
    What it does on the device is recorded; what it reads on the host (row_offsets, key_lengths,
    visible()) is that of the recorded call, so lengths are to be read on the device, from
    row_offsets_device, key_lengths_device and page_table_device.
    """

    WARM_UPS = 2  # torch wants what is captured to have run on a side stream: kernels are compiled there

    def __init__(self, function, problem, device="cuda"):
        import torch

        self._tensors = problem.fixed().to("torch", device).fixed()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UPS):
                function(self._tensors)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = function(self._tensors)

    def replay(self, problem):
        """The results of a launch with the values of `problem`, NaN before it."""
        import torch

        self._tensors.refill(problem)
        results = self._results if isinstance(self._results, (tuple, list)) else [self._results]
        for result in results:
            if result is not None:
                result.fill_(float("nan"))
        self._graph.replay()
        torch.cuda.synchronize()
        return self._results
