// Package bench compares Outrider with what it would be replaced by, in one run.
package bench
