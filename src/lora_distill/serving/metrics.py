"""What a server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """A server's own counts, and its process' memory and seconds."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "lora_distill_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "lora_distill_request_seconds",
            "From the end of a request's head to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "lora_distill_batch_texts", "Texts that were answered together.", buckets=TEXTS, registry=self._registry
        )
        self._computing = Counter(
            "lora_distill_computing_seconds", "Seconds in which a batch was computed.", registry=self._registry
        )
        self._waiting = Gauge("lora_distill_waiting_texts", "Texts that wait for their turn.", registry=self._registry)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Ask this how many texts wait, whenever that is told."""
        self._waiting.set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request: by its route, so that no client can make up new names."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, texts: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(texts)
        self._computing.inc(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
