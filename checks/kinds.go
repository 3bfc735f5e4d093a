package checks

import "github.com/outrider-agent/outrider/agent/config"

// Kinds is the table of kinds: the key in the configuration, and its struct.
func Kinds() config.Kinds {
	return config.Kinds{
		"certificate": func() any { return &CertificateConfig{} },
		"digest":      func() any { return &DigestConfig{} },
		"disk":        func() any { return &DiskConfig{} },
		"dns":         func() any { return &DNSConfig{} },
		"exec":        func() any { return &ExecConfig{} },
		"heartbeat":   func() any { return &HeartbeatConfig{} },
		"http":        func() any { return &HTTPConfig{} },
		"pipeline":    func() any { return &PipelineConfig{} },
		"process":     func() any { return &ProcessConfig{} },
		"stream":      func() any { return &StreamConfig{} },
		"stuck":       func() any { return &StuckConfig{} },
		"tcp":         func() any { return &TCPConfig{} },
		"threshold":   func() any { return &ThresholdConfig{} },
	}
}
