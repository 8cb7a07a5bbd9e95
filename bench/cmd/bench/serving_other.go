//go:build !linux

package main

// servingRows needs Linux: see bench/load.
func servingRows(string, ...string) [][]string {
	return [][]string{{"serving", "SKIPPED: the load generator needs Linux", "", "", "", ""}}
}
