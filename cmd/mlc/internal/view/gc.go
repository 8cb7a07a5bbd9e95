package view

import (
	"fmt"
	"strings"

	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/gc"
)

// Garbage prints what may be deleted, with the reasons; deleted says that it was.
func (v *View) Garbage(p *gc.Plan, deleted bool) {
	if v.JSON {
		for _, it := range p.Items {
			v.Emit("gc_item", it)
		}
		v.Emit("gc_summary", map[string]any{"deleted": deleted, "bytes": p.Freed(), "spared": p.Spared, "absent": p.Absent,
			"kept": map[string]any{"versions": p.Versions, "results": p.Results, "bytes": p.Bytes}})
		return
	}
	for _, ref := range p.Absent {
		v.Notef("%s: its bundle is not in this store\n", ref)
	}
	if p.Spared {
		v.Notef("results stay, and what others may need: see `mlc gc --help` on --shared\n")
	}
	kept := fmt.Sprintf("Kept: %d versions, %d results, %s.", p.Versions, p.Results, types.FormatSize(p.Bytes))
	if p.Spared {
		kept = ""
	}
	if len(p.Items) == 0 {
		v.Printf("%s\n", strings.TrimSpace("Nothing to delete. "+kept))
		return
	}
	width := 0
	for _, it := range p.Items {
		width = max(width, len(it.What))
	}
	for _, it := range p.Items {
		v.Printf("%-*s  %4d  %8s  %s\n", width, it.What, it.Count, types.FormatSize(it.Bytes), v.Dim(it.Why))
	}
	what := "Deleting this would free"
	if deleted {
		what = "Freed"
	}
	v.Printf("\n%s\n", strings.TrimSpace(fmt.Sprintf("%s %s. %s", what, types.FormatSize(p.Freed()), kept)))
	if !deleted {
		v.Notef("`mlc gc --apply` with the same flags deletes it\n")
	}
}
