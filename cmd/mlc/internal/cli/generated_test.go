package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGeneratedIsKeptOnFailure: what was written before an error is mlc's all the same,
// to be written anew; and an empty file is a file.
func TestGeneratedIsKeptOnFailure(t *testing.T) {
	dir := t.TempDir()
	mine := func(string) bool { return true }
	block := filepath.Join(dir, "b")
	if err := os.WriteFile(block, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := replace(t.Context(), dir, "api", map[string][]byte{"a": []byte("1"), "empty": nil, "z/c": nil}, mine, false); err != nil {
		t.Fatal(err)
	}
	if _, err := replace(t.Context(), dir, "api", map[string][]byte{"a": []byte("2"), "b/c": []byte("2"), "empty": nil}, mine, true); err == nil {
		t.Fatal("a file in a file was written")
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	removed, err := replace(t.Context(), dir, "api", map[string][]byte{"a": []byte("3"), "empty": nil}, mine, false)
	if err != nil || len(removed) != 1 || removed[0] != "z/c" {
		t.Fatal(removed, err)
	}
	for name, want := range map[string]string{"a": "3", "empty": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "z")); !os.IsNotExist(err) {
		t.Error("an empty folder is left", err)
	}
}
