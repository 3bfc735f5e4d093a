package kubelet

import (
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// A store holds the pods of our nodes as the API server last told, and says which changed. The reflector writes it.
type store struct {
	cache.Store
	changed func(key string)
	filled  atomic.Bool
}

func newStore(changed func(key string)) *store {
	return &store{Store: cache.NewStore(cache.MetaNamespaceKeyFunc), changed: changed}
}

func (s *store) Add(obj any) error {
	trim(obj)
	return s.tell(obj, s.Store.Add(obj))
}

func (s *store) Update(obj any) error {
	trim(obj)
	return s.tell(obj, s.Store.Update(obj))
}

func (s *store) Delete(obj any) error {
	return s.tell(obj, s.Store.Delete(obj))
}

// Replace tells of all pods, those that are gone too.
func (s *store) Replace(objects []any, resourceVersion string) error {
	before := s.ListKeys()
	for _, obj := range objects {
		trim(obj)
	}
	if err := s.Store.Replace(objects, resourceVersion); err != nil {
		return fmt.Errorf("replace pods: %w", err)
	}
	s.filled.Store(true)
	for _, key := range append(before, s.ListKeys()...) {
		s.changed(key)
	}
	return nil
}

func (s *store) tell(obj any, err error) error {
	if err != nil {
		return err
	}
	key, err := cache.MetaNamespaceKeyFunc(obj)
	if err != nil {
		return fmt.Errorf("key of pod: %w", err)
	}
	s.changed(key)
	return nil
}

// trim drops what no kubelet reads and is often half of the object.
func trim(obj any) {
	if pod, ok := obj.(*corev1.Pod); ok {
		pod.ManagedFields = nil
	}
}
