// The receiver of the OpenTelemetry collector for OTLP/HTTP: prints its address, then what it was sent as lines of JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func span(s ptrace.Span) map[string]any {
	return map[string]any{
		"kind_of_item": "span",
		"name":         s.Name(),
		"trace":        s.TraceID().String(),
		"id":           s.SpanID().String(),
		"parent":       s.ParentSpanID().String(),
		"kind":         s.Kind().String(),
		"status":       s.Status().Code().String(),
		"message":      s.Status().Message(),
		"attributes":   s.Attributes().AsRaw(),
		"links":        s.Links().Len(),
		"nanoseconds":  s.EndTimestamp() - s.StartTimestamp(),
	}
}

func metric(m pmetric.Metric) map[string]any {
	item := map[string]any{
		"kind_of_item": "metric", "name": m.Name(), "type": m.Type().String(), "unit": m.Unit(),
	}
	switch m.Type() {
	case pmetric.MetricTypeSum:
		p := m.Sum().DataPoints().At(0)
		item["value"], item["labels"] = p.DoubleValue(), p.Attributes().AsRaw()
		item["temporality"] = m.Sum().AggregationTemporality().String()
	case pmetric.MetricTypeGauge:
		p := m.Gauge().DataPoints().At(0)
		item["value"], item["labels"] = p.DoubleValue(), p.Attributes().AsRaw()
	case pmetric.MetricTypeHistogram:
		p := m.Histogram().DataPoints().At(0)
		item["count"], item["sum"], item["labels"] = p.Count(), p.Sum(), p.Attributes().AsRaw()
		item["buckets"], item["bounds"] = p.BucketCounts().AsRaw(), p.ExplicitBounds().AsRaw()
		item["temporality"] = m.Histogram().AggregationTemporality().String()
	}
	return item
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	address := listener.Addr().String()
	check(listener.Close())

	out := json.NewEncoder(os.Stdout)
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	check(confmap.NewFromStringMap(map[string]any{
		"protocols": map[string]any{"http": map[string]any{"endpoint": address}},
	}).Unmarshal(config))
	settings := receivertest.NewNopSettings(factory.Type())

	traces, err := consumer.NewTraces(func(_ context.Context, all ptrace.Traces) error {
		for _, resource := range all.ResourceSpans().All() {
			for _, scope := range resource.ScopeSpans().All() {
				for _, each := range scope.Spans().All() {
					item := span(each)
					item["resource"] = resource.Resource().Attributes().AsRaw()
					check(out.Encode(item))
				}
			}
		}
		return nil
	})
	check(err)
	metrics, err := consumer.NewMetrics(func(_ context.Context, all pmetric.Metrics) error {
		for _, resource := range all.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, each := range scope.Metrics().All() {
					check(out.Encode(metric(each)))
				}
			}
		}
		return nil
	})
	check(err)

	ctx := context.Background()
	forTraces, err := factory.CreateTraces(ctx, settings, config, traces)
	check(err)
	forMetrics, err := factory.CreateMetrics(ctx, settings, config, metrics)
	check(err)
	check(forTraces.Start(ctx, componenttest.NewNopHost()))
	check(forMetrics.Start(ctx, componenttest.NewNopHost()))
	check(out.Encode(map[string]any{"url": "http://" + address}))
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with its standard input
}
