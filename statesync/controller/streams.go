package controller

import (
	"fmt"
	"maps"
	"slices"

	"github.com/outrider-agent/outrider/statesync/kube"
	"github.com/outrider-agent/outrider/statesync/watch"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// makeStreams says what is watched, and how it is reached: each collection in
// each namespace.
func (c *Controller) makeStreams() ([]watch.Stream, error) {
	var tracked []watch.Stream
	for _, of := range c.opts.Config.Kinds {
		k, err := of.Workload()
		if err != nil {
			return nil, fmt.Errorf("kind %s: %w", of.Kind, err)
		}
		tracked = append(tracked, watch.Stream{Kind: k, Selector: of.Selector})
	}
	namespaces := c.opts.Config.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	var out []watch.Stream
	for _, s := range withFolded(tracked) {
		for _, s.Namespace = range namespaces {
			source, err := c.client.Collection(kube.CollectionOptions{
				Group: s.Kind.Group, Version: s.Kind.Version, Resource: s.Kind.Resource, Namespace: s.Namespace, Selector: s.Selector,
				List: s.Kind.List, Object: s.Kind.Object, Reads: s.Kind.Reads, Trim: s.Kind.Trimmer,
			})
			if err != nil {
				return nil, err
			}
			s.Source = source
			out = append(out, s)
		}
	}
	return out, nil
}

// withFolded adds what is read to tell the story of what is tracked, and comes
// first: the kinds that lie between it and its pods, by their metadata alone,
// to know who controls whom; and the pods. A configured kind may control
// anything.
func withFolded(tracked []watch.Stream) []watch.Stream {
	has, roots := map[string]bool{}, []workload.Kind{}
	for _, s := range tracked {
		has[s.Kind.Name] = true
		if s.Kind.Folds {
			roots = append(roots, s.Kind)
		}
	}
	var folded []watch.Stream
	for _, name := range slices.Sorted(maps.Keys(workload.Kinds)) {
		if has[name] || name == "Pod" {
			continue
		}
		if slices.ContainsFunc(roots, func(root workload.Kind) bool { return root.MayControl(name) }) {
			folded = append(folded, watch.Stream{Kind: workload.Hop(workload.Kinds[name]), FoldOnly: true})
		}
	}
	if len(roots) > 0 && !has["Pod"] {
		folded = append(folded, watch.Stream{Kind: workload.Kinds["Pod"], FoldOnly: true})
	}
	return append(folded, tracked...)
}
