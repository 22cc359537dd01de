"""Which peer runs when: several beside each other, within a budget."""

import collections
import threading
import time


class Queue:
    """Names of peers that wait for one of `lanes`; `budget` and `most` (of one turn) in seconds."""

    def __init__(self, names, lanes, budget, most):
        self.waiting, self.lock = collections.deque(names), threading.Lock()
        self.lanes, self.most = lanes, most
        self.until = time.monotonic() + budget

    def take(self):
        """(the next name, its share of the seconds that are left), None where no one waits."""
        with self.lock:
            if not self.waiting:
                return None
            left = self.until - time.monotonic()
            share = min(left, left * self.lanes / len(self.waiting), self.most)
            return self.waiting.popleft(), share

    def put(self, name):
        """It waits again: before the others, so that no slow one is left to the end, where all of them
        can still have a whole turn; else behind them."""
        with self.lock:
            left = self.until - time.monotonic()
            if left * self.lanes >= self.most * (len(self.waiting) + 1):
                self.waiting.appendleft(name)
            else:
                self.waiting.append(name)
