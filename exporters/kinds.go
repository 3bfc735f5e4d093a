package exporters

import "github.com/outrider-agent/outrider/agent/config"

// Kinds is the table of kinds that push: the key in the configuration, and its
// struct. Those with a heavy dependency are subpackages, which who links them adds.
func Kinds() config.Kinds {
	return config.Kinds{
		"opentsdb": func() any { return &OpenTSDBConfig{} },
	}
}
