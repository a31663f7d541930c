"""Sends logs, traces and metrics with the official OpenTelemetry SDK, over HTTP/protobuf and over gRPC.

Usage: otlp_sender.py HTTP_ENDPOINT GRPC_ENDPOINT [--token TOKEN] [--marker TEXT] [--logs N]
                      [--only http|grpc] [--seconds N] [--ca FILE [--client-certificate FILE --client-key FILE]]

  HTTP_ENDPOINT   such as http://127.0.0.1:4318 (the /v1/... paths are added)
  GRPC_ENDPOINT   such as 127.0.0.1:4317; TLS with --ca
  --token         sent as 'Authorization: Bearer TOKEN'
  --marker        text to find the records by; a fresh one when left out
  --logs          log records per transport, 20 when left out
  --only          one transport instead of both
  --seconds       how long each signal is tried, 10 when left out
  --ca            PEM file of the authority of the listeners' certificate
  --client-...    PEM files of the certificate to show, and of its key

Guards the ingest door against being right only for our own sender. Prints one line of JSON with the marker, the trace
ids and the counts, so that a test can look for them; exits 1 with one sentence when anything was not acknowledged.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import uuid
from pathlib import Path

import grpc
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

SPANS = 3


class Outcomes:
    """Remembers whether every export was acknowledged; the SDK itself only logs a failure."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []

    def watch(self, signal: str, exporter):
        export = exporter.export

        def watched(batch, *args, **kwargs):
            result = export(batch, *args, **kwargs)
            if result.name == "SUCCESS":
                self.acknowledged[signal] = self.acknowledged.get(signal, 0) + 1
            else:
                self.refused.append(signal)
            return result

        exporter.export = watched
        return exporter


def send_spans(provider: TracerProvider, marker: str) -> tuple[str, Context]:
    tracer = provider.get_tracer("otlp-sender", "1.0")
    with tracer.start_as_current_span("GET /checkout", kind=SpanKind.SERVER, attributes={"marker": marker}) as root:
        root.set_attribute("http.request.method", "GET")
        with tracer.start_as_current_span("charge", kind=SpanKind.CLIENT, attributes={"attempts": [1, 2]}) as failed:
            failed.record_exception(ValueError(f"card declined {marker}"))
            failed.set_status(Status(StatusCode.ERROR, "card declined"))
        with tracer.start_as_current_span("cache") as cache:
            cache.add_event("miss", {"key": marker})
        return f"{root.get_span_context().trace_id:032x}", set_span_in_context(root)


def send_logs(provider: LoggerProvider, marker: str, count: int, context: Context) -> None:
    logger = provider.get_logger("otlp-sender", "1.0")
    levels = [SeverityNumber.INFO, SeverityNumber.WARN, SeverityNumber.ERROR]
    for number in range(count):
        level = levels[number % len(levels)]
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                observed_timestamp=time.time_ns(),
                context=context,
                severity_number=level,
                severity_text=level.name,
                body=f"order {number} of {marker} — größe \"{number}\"",
                attributes={"marker": marker, "number": number, "ok": number % 2 == 0, "ratio": number / 7},
            )
        )


def send_metrics(provider: MeterProvider, marker: str) -> None:
    meter = provider.get_meter("otlp-sender", "1.0")
    attributes = {"marker": marker}
    meter.create_counter("probe.orders", unit="{order}", description="orders taken").add(7, attributes)
    meter.create_up_down_counter("probe.queue.length").add(-2, attributes)
    meter.create_observable_gauge("probe.temperature", callbacks=[lambda _: [Observation(21.5, attributes)]], unit="Cel")
    for name in ("probe.duration", "probe.exponential.duration"):
        histogram = meter.create_histogram(name, unit="s")
        for value in (0.002, 0.04, 0.04, 1.7):
            histogram.record(value, attributes)


def send(transport: str, exporters: tuple, marker: str, logs: int) -> dict:
    outcomes = Outcomes()
    spans, records, metrics = (
        outcomes.watch(signal, exporter) for signal, exporter in zip(("traces", "logs", "metrics"), exporters, strict=True)
    )
    service = f"otlp-sender-{transport}"
    resource = Resource.create({"service.name": service, "service.version": "1.0", "deployment.environment.name": "test"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(spans))
    loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(records))
    exponential = View(
        instrument_type=Histogram,
        instrument_name="probe.exponential.duration",
        aggregation=ExponentialBucketHistogramAggregation(),
    )
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=3_600_000)
    meters = MeterProvider(resource=resource, metric_readers=[reader], views=[exponential], shutdown_on_exit=False)

    trace_id, context = send_spans(tracers, marker)
    send_logs(loggers, marker, logs, context)
    send_metrics(meters, marker)
    for signal, provider in (("traces", tracers), ("logs", loggers), ("metrics", meters)):
        provider.shutdown()  # sends what is waiting, once
        if signal in outcomes.refused or not outcomes.acknowledged.get(signal):
            raise SystemExit(f"otlp_sender: {signal} over {transport} were not acknowledged")
    return {"service": service, "trace_id": trace_id, "spans": SPANS, "logs": logs, "metrics": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("http_endpoint")
    parser.add_argument("grpc_endpoint")
    parser.add_argument("--token", default="")
    parser.add_argument("--marker", default="")
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--only", choices=("http", "grpc"))
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--ca")
    parser.add_argument("--client-certificate")
    parser.add_argument("--client-key")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    marker = arguments.marker or f"marker-{uuid.uuid4().hex}"
    headers = {"authorization": f"Bearer {arguments.token}"} if arguments.token else {}
    base = arguments.http_endpoint.rstrip("/")
    http = {"headers": headers, "timeout": arguments.seconds, "compression": Compression.Gzip}
    rpc = {
        "endpoint": arguments.grpc_endpoint,
        "insecure": True,
        "headers": tuple(headers.items()),
        "timeout": arguments.seconds,
        "compression": grpc.Compression.Gzip,
    }
    if arguments.ca:
        shown = {"client_certificate_file": arguments.client_certificate, "client_key_file": arguments.client_key}
        http |= {"certificate_file": arguments.ca} | (shown if arguments.client_certificate else {})
        files = (arguments.ca, arguments.client_key, arguments.client_certificate)
        authority, key, certificate = (Path(file).read_bytes() if file else None for file in files)
        rpc |= {"insecure": False, "credentials": grpc.ssl_channel_credentials(authority, key, certificate)}
    report = {"marker": marker}
    if arguments.only != "grpc":
        over_http = (
            HttpSpans(endpoint=f"{base}/v1/traces", **http),
            HttpLogs(endpoint=f"{base}/v1/logs", **http),
            HttpMetrics(endpoint=f"{base}/v1/metrics", **http),
        )
        report["http"] = send("http", over_http, marker, arguments.logs)
    if arguments.only != "http":
        report["grpc"] = send("grpc", (GrpcSpans(**rpc), GrpcLogs(**rpc), GrpcMetrics(**rpc)), marker, arguments.logs)
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())
