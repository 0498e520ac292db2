package engine

import "strings"

// Filter picks what has all of the labels: each is "key" or "key=value". A nil filter picks everything.
type Filter []string

func (f Filter) accepts(labels map[string]string) bool {
	for _, wanted := range f {
		key, value, exact := strings.Cut(wanted, "=")
		has, found := labels[key]
		if !found || exact && has != value {
			return false
		}
	}
	return true
}
