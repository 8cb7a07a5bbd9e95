package file

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKeys: the keys of objects are known in the orders in which they come, not those
// within them, and not of an object that has one twice.
func TestKeys(t *testing.T) {
	names, orders := keys([]byte(`{"b":{"x":[{"y":1}]},"a":[["z"],"w"],"c":null}
{"a":1,"b":2,"a":3}
[1]
{"c":"a","b":"c"}
{"b":1,"a":"x","c":{}}
{}
{"d"`))
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"b", "a", "c"}, {"c", "b"}}, orders); diff != "" {
		t.Error(diff)
	}
}
