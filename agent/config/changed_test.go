package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChanged(t *testing.T) {
	type inner struct {
		Max  Bytes         `yaml:"max"`
		Keep time.Duration `yaml:"keep"`
	}
	type outer struct {
		inner
		Name   string   `yaml:"name"`
		List   []string `yaml:"list"`
		Fold   *bool    `yaml:"fold"`
		Inner  inner    `yaml:"inner"`
		Secret Secret   `yaml:"secret"`
		Items  []Item   `yaml:"items"`
		Line   int      // no key
	}
	base := func() outer {
		return outer{Name: "a", List: []string{"x", "y"}, Fold: new(true), Inner: inner{1, 2}, Secret: NewSecret("s"), Items: []Item{{Name: "a", Kind: "k", Config: &inner{1, 2}, Line: 3}}}
	}
	tests := []struct {
		name   string
		change func(*outer)
		want   []string
	}{
		{"nothing", func(*outer) {}, nil},
		{"what is no key", func(o *outer) { o.Line = 7 }, nil},
		{"text", func(o *outer) { o.Name = "b" }, []string{"name"}},
		{"the order of a list", func(o *outer) { o.List = []string{"y", "x"} }, []string{"list"}},
		{"what a pointer points to", func(o *outer) { o.Fold = new(false) }, []string{"fold"}},
		{"a secret", func(o *outer) { o.Secret = NewSecret("t") }, []string{"secret"}},
		{"where an item stands", func(o *outer) { o.Items[0].Line, o.Items[0].Key, o.Items[0].nameLine = 9, "items[0]", 9 }, nil},
		{"what an item says", func(o *outer) { o.Items[0].Config = &inner{1, 3} }, []string{"items"}},
		{"an item more", func(o *outer) { o.Items = append(o.Items, Item{Name: "b"}) }, []string{"items"}},
		{"keys below, and of what is embedded", func(o *outer) { o.Inner.Keep, o.Max = 3, 4 }, []string{"inner.keep", "max"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after := base()
			tt.change(&after)
			if diff := cmp.Diff(tt.want, Changed(base(), after)); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}
