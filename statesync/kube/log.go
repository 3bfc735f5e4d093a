package kube

import (
	"log/slog"

	"k8s.io/klog/v2"
)

// LogTo sends what client-go logs to a logger. It changes the whole process,
// so only the command calls it.
func LogTo(log *slog.Logger) { klog.SetSlogLogger(log.With("by", "client-go")) }
