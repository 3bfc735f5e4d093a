module github.com/outrider-agent/outrider/docs/model

go 1.26.0
