package op

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// The columns that every dataset has beside its features.
const (
	colRow   = "_row_id" // from 0, in the order of the label's rows
	colLabel = "_label"  // 0 or 1, class index, or value
	colAt    = "_at"     // prediction time, microseconds; 0 without one
	colKnown = "_known"  // from when on the outcome is known, microseconds; 0 without a prediction time
	colGroup = "_group"  // identity for splits
	colFile  = "_file"   // index of the file that the row comes from
)

// labelColumn is the column of a label's k-th target.
func labelColumn(k int) string {
	if k == 0 {
		return colLabel
	}
	return fmt.Sprintf("%s.%d", colLabel, k)
}

// target is what it is called while the dataset is made.
func target(k int) string {
	if k == 0 {
		return "_y"
	}
	return fmt.Sprintf("_y%d", k)
}

// Meta describes a dataset.
type Meta struct {
	Task kind.Task `json:"task"`
	Rows int64     `json:"rows"`
	Origin
}

// Origin is what a dataset comes from, for people alone: what trains and judges does not
// read it, and so does not run again where the same rows come of other sources.
type Origin struct {
	Dropped map[string]int64 `json:"dropped,omitempty"`
	Joins   []JoinCounts     `json:"joins,omitempty"`
	Windows []WindowCounts   `json:"windows,omitempty"`
	// Sources are the digests of the validated rows that it was made of.
	Sources map[string]string `json:"sources,omitempty"`
}

// JoinCounts tells what a point-in-time join found.
type JoinCounts struct {
	Group    string `json:"group"`
	Input    string `json:"input"`
	Present  int64  `json:"present"`
	NotFound int64  `json:"not_found"`
	Expired  int64  `json:"expired"`
	// Superseded rows came to be known after a newer event was, or with the same
	// key at the same time, and so are never the latest.
	Superseded int64 `json:"superseded"`
}

// WindowCounts tells what windows found: for Present rows a value in any of them.
type WindowCounts struct {
	Group      string  `json:"group"`
	Input      string  `json:"input"`
	Statistics int     `json:"statistics"`
	Spans      []int64 `json:"spans"` // microseconds, rising
	Present    int64   `json:"present"`
	Empty      int64   `json:"empty"`
}

func (s *Stage) rows(input string) string {
	return expr.ReadParquet(s.In(input, "rows.parquet"))
}

// datasetBuild makes the spine, the label's rows in order with an id each, and
// joins the snapshot features as they were known at each row's time.
func datasetBuild(ctx context.Context, s *Stage) error {
	a, err := decode[lower.DatasetArgs](s)
	if err != nil {
		return err
	}
	db, err := s.sql(ctx, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	m := Meta{Task: kind.Task{Kind: a.Task, Quantiles: a.Quantiles}, Origin: Origin{Dropped: map[string]int64{}, Sources: map[string]string{}}}
	for _, in := range s.Inputs {
		m.Sources[strings.TrimPrefix(in.Name, "source:")] = string(in.Digest)
	}
	b := &builder{ctx: ctx, s: s, a: a, db: db, meta: &m}
	if err := b.labels(); err != nil {
		return err
	}
	if err := b.spine(); err != nil {
		return err
	}
	from, features, err := b.joins()
	if err != nil {
		return err
	}
	cols := []string{colRow}
	for k := range a.Labels {
		cols = append(cols, expr.QuoteName(labelColumn(k)))
	}
	cols = append(cols, colAt, colKnown, colGroup, colFile)
	for _, f := range a.Features {
		features = append(features, expr.QuoteName(f.Name))
	}
	inner := "SELECT " + strings.Join(append(cols, features...), ", ") + " FROM " + from
	for _, c := range a.Computed {
		inner = "SELECT *, " + c.SQL + " AS " + expr.QuoteName(c.Name) + " FROM (" + inner + ")"
	}
	if err := db.WriteParquet(ctx, inner+" ORDER BY "+colRow, s.Out("rows", "rows.parquet")); err != nil {
		return err
	}
	if m.Rows, err = table.Rows(s.Out("rows", "rows.parquet")); err != nil {
		return err
	}
	switch a.Task {
	case kind.Binary, kind.Anomaly:
		m.Task.Classes = []string{"false", "true"}
	case kind.Multilabel:
		for _, l := range a.Labels {
			m.Task.Classes = append(m.Task.Classes, l.Name)
		}
	}
	s.Report["rows"], s.Report["dropped"], s.Report["joins"] = m.Rows, m.Dropped, m.Joins
	s.Progress(m.Rows, m.Rows, "rows", "")
	if err := s.writeJSON(s.Out("origin", "origin.json"), m.Origin); err != nil {
		return err
	}
	return s.writeJSON(s.Out("meta", "meta.json"), Meta{Task: m.Task, Rows: m.Rows})
}

type builder struct {
	ctx  context.Context
	s    *Stage
	a    lower.DatasetArgs
	db   *sql.DB
	meta *Meta
}

// labels looks at the labels before anything is built: how many are missing or
// not yet known, and which classes there are.
func (b *builder) labels() error {
	mature, at := "true", "true"
	if b.a.At != "" {
		q := "l." + expr.QuoteName(b.a.At)
		at = q + " IS NOT NULL"
		if b.a.Mature > 0 || b.a.ColumnDelay > 0 {
			event := expr.QuoteName(b.a.Event)
			mature = fmt.Sprintf("greatest(epoch_us(%s) + %d, epoch_us(l.%s) + %d) <= (SELECT max(epoch_us(%s)) FROM %s)", q, b.a.Mature, event, b.a.ColumnDelay, event, b.s.rows(b.a.Source))
		}
	}
	missing, targets, finite := make([]string, len(b.a.Labels)), make([]string, len(b.a.Labels)), "true"
	for k, l := range b.a.Labels {
		missing[k], targets[k] = target(k)+" IS NULL", l.SQL+" AS "+target(k)
	}
	if kind.IsNumeric(b.a.Task) {
		finite = "coalesce(isfinite(_y), true)"
	}
	err := b.db.Exec(b.ctx, fmt.Sprintf("CREATE TEMP TABLE labelled AS SELECT * EXCLUDE (_timed, _mature), CASE WHEN %s THEN 'missing label' WHEN NOT %s THEN 'infinite label' WHEN NOT _timed THEN 'missing time' WHEN NOT _mature THEN 'outcome not yet known' END AS _dropped FROM (SELECT _row, %s, %s AS _timed, %s AS _mature FROM %s AS l)",
		strings.Join(missing, " OR "), finite, strings.Join(targets, ", "), at, mature, b.s.rows(b.a.Source)))
	if err != nil {
		return err
	}
	var kept int64
	err = b.db.Rows(b.ctx, "SELECT _dropped, count(*) FROM labelled GROUP BY 1 ORDER BY 1", func(scan func(...any) error) error {
		var reason *string
		var n int64
		if err := scan(&reason, &n); err != nil {
			return err
		}
		if reason == nil {
			kept = n
		} else {
			b.meta.Dropped[*reason] = n
		}
		return nil
	})
	if err != nil {
		return err
	}
	if kept == 0 {
		return fault("labels", diag.BadLabel, b.whyDropped(), "look at the label's expression and its columns' profiles", "no row has a label")
	}
	var classes []string
	for k, l := range b.a.Labels {
		classes = nil
		err = b.db.Rows(b.ctx, fmt.Sprintf("SELECT DISTINCT CAST(%s AS VARCHAR) AS c, TRY_CAST(c AS DOUBLE) AS n FROM labelled WHERE _dropped IS NULL ORDER BY n NULLS LAST, c LIMIT 10001", target(k)), func(scan func(...any) error) error {
			var c string
			var n *float64
			if err := scan(&c, &n); err != nil {
				return err
			}
			classes = append(classes, c)
			return nil
		})
		if err != nil {
			return err
		}
		if len(classes) == 1 {
			name := "label"
			if l.Name != "" {
				name += " " + l.Name
			}
			return fault(fmt.Sprintf("labels[%d]", k), diag.BadLabel, "there is nothing to tell apart", "look at the label's expression and its columns' profiles", "every %s is %s", name, classes[0])
		}
	}
	if b.a.Task == kind.Count {
		var wrong int64
		if err := b.db.Row(b.ctx, "SELECT count(*) FROM labelled WHERE _dropped IS NULL AND (_y < 0 OR _y <> floor(_y))", &wrong); err != nil {
			return err
		}
		if wrong > 0 {
			return fault("labels[0]", diag.BadLabel, "a count is a whole number from 0 on", `mend the label's expression, or use kind: "regression"`, "%d labels are no counts", wrong)
		}
	}
	if b.a.Task == kind.Multiclass {
		if len(classes) > 10000 {
			return fault("labels", diag.BadLabel, "a class needs rows to be learned", "did you mean a regression?", "the label has more than 10000 classes")
		}
		b.meta.Task.Classes = classes
	}
	return nil
}

// whyDropped tells why rows were left out, as "3 rows: missing label".
func (b *builder) whyDropped() string {
	var out []string
	for reason, n := range b.meta.Dropped {
		out = append(out, fmt.Sprintf("%d rows: %s", n, reason))
	}
	sort.Strings(out)
	return strings.Join(out, "; ")
}

// spine makes the table spine: id, label, time, identity, keys and the features
// of the label's own row.
func (b *builder) spine() error {
	a := b.a
	y := "CAST(_y AS DOUBLE)"
	if a.Task == kind.Multiclass {
		quoted := make([]string, len(b.meta.Task.Classes))
		for i, c := range b.meta.Task.Classes {
			quoted[i] = expr.QuoteString(c)
		}
		y = "CAST(list_position([" + strings.Join(quoted, ", ") + "], _y) - 1 AS DOUBLE)"
	}
	at, known := "0::BIGINT", "0::BIGINT"
	if a.At != "" {
		q := expr.QuoteName(a.At)
		at = fmt.Sprintf("epoch_us(l.%s) - %d", q, a.Horizon)
		row := "epoch_us(l." + expr.QuoteName(a.Event) + ")"
		if a.Created != "" {
			row = fmt.Sprintf("greatest(%s, epoch_us(l.%s))", row, expr.QuoteName(a.Created))
		}
		known = fmt.Sprintf("greatest(epoch_us(l.%s) + %d, %s + %d)", q, a.Mature, row, a.RowDelay)
	}
	group := "CAST(l._row AS VARCHAR)"
	if len(a.Group) > 0 {
		parts := make([]string, len(a.Group))
		for i, k := range a.Group {
			// The length keeps ("1","23") apart from ("12","3").
			v := "coalesce(CAST(l." + expr.QuoteName(k) + " AS VARCHAR), '')"
			parts[i] = "length(" + v + ") || ':' || " + v
		}
		group = strings.Join(parts, " || ")
	}
	cols := []string{"row_number() OVER (ORDER BY l._row) - 1 AS " + colRow, y + " AS " + expr.QuoteName(colLabel), at + " AS " + colAt, known + " AS " + colKnown, group + " AS " + colGroup, "CAST(l._file AS BIGINT) AS " + colFile}
	for k := 1; k < len(a.Labels); k++ {
		cols = append(cols, "CAST("+target(k)+" AS DOUBLE) AS "+expr.QuoteName(labelColumn(k)))
	}
	for _, f := range a.Features {
		cols = append(cols, f.SQL+" AS "+expr.QuoteName(f.Name))
	}
	keys := map[string]bool{}
	var left []string
	for _, j := range a.Snapshots {
		left = append(left, j.Left...)
	}
	for _, w := range a.Windows {
		left = append(left, w.Left...)
	}
	for _, k := range left {
		if !keys[k] {
			keys[k] = true
			cols = append(cols, "l."+expr.QuoteName(k)+" AS "+expr.QuoteName("_key."+k))
		}
	}
	return b.db.Exec(b.ctx, "CREATE TEMP TABLE spine AS SELECT "+strings.Join(cols, ", ")+" FROM "+b.s.rows(a.Source)+" AS l JOIN labelled USING (_row) WHERE _dropped IS NULL")
}

// joins makes a table for each snapshot, a row for each of the spine's, and
// returns the FROM clause over all of them with their columns.
func (b *builder) joins() (from string, cols []string, err error) {
	from = "spine"
	for i, j := range b.a.Snapshots {
		name := fmt.Sprintf("join_%d", i)
		if err := b.join(i, name, j); err != nil {
			return "", nil, err
		}
		from += fmt.Sprintf(" LEFT JOIN %s USING (%s)", name, colRow)
		for _, c := range j.Columns {
			cols = append(cols, expr.QuoteName(c.Name))
		}
	}
	for i, w := range b.a.Windows {
		name := fmt.Sprintf("window_%d", i)
		if err := b.window(name, w); err != nil {
			return "", nil, err
		}
		from += fmt.Sprintf(" LEFT JOIN %s USING (%s)", name, colRow)
		for _, c := range w.Columns {
			cols = append(cols, expr.QuoteName(c.Name))
		}
	}
	return from, cols, nil
}

// aggregates are the statistics of a window over _x0, _x1, …, doubles.
var aggregates = map[string]string{
	"count": "CAST(count(%[1]s) OVER %[2]s AS DOUBLE)", "sum": "sum(%[1]s) OVER %[2]s", "mean": "avg(%[1]s) OVER %[2]s",
	"min": "min(%[1]s) OVER %[2]s", "max": "max(%[1]s) OVER %[2]s", "std": "stddev_samp(%[1]s) OVER %[2]s",
}

// ties is more than there are rows of one key that become known at once: it spreads
// them, so that sums of floats have one order.
const ties = 1 << 40

// window computes statistics over the rows of each key that became known in the span
// (at - window, at], for each row of the spine: facts and spine go into one sequence by
// time, a fact before what is predicted at its very time. Of earlier facts the span is
// [at - window, at), and a fact comes after.
func (b *builder) window(name string, w lower.Windowed) error {
	keys, left, notNull := make([]string, len(w.Right)), make([]string, len(w.Right)), make([]string, 0, len(w.Right)+2)
	for i, k := range w.Right {
		keys[i] = fmt.Sprintf("r.%s AS _k%d", expr.QuoteName(k), i)
		left[i] = fmt.Sprintf("s.%s AS _k%d", expr.QuoteName("_key."+w.Left[i]), i)
		notNull = append(notNull, "r."+expr.QuoteName(k)+" IS NOT NULL")
	}
	event := "epoch_us(r." + expr.QuoteName(w.Event) + ")"
	created := event
	notNull = append(notNull, event+" IS NOT NULL")
	if w.Created != "" {
		created = "epoch_us(r." + expr.QuoteName(w.Created) + ")"
		notNull = append(notNull, created+" IS NOT NULL")
	}
	by := make([]string, len(w.Right))
	for i := range by {
		by[i] = fmt.Sprintf("_k%d", i)
	}
	part, place := strings.Join(by, ", "), int64(ties-1)
	if w.Earlier {
		place = 0
	}
	counts := WindowCounts{Group: w.Group, Input: strings.TrimPrefix(w.Input, "source:"), Statistics: len(w.Columns)}
	var facts, nulls, stats, found []string
	for i, c := range w.Columns {
		// Infinities have no place in sums.
		facts = append(facts, fmt.Sprintf("CASE WHEN isfinite(%[1]s) THEN %[1]s END AS _x%[2]d", c.SQL, i))
		nulls = append(nulls, fmt.Sprintf("CAST(NULL AS DOUBLE) AS _x%d", i))
		frame := fmt.Sprintf("(PARTITION BY %s ORDER BY _at RANGE BETWEEN CAST(%d AS HUGEINT) * %d PRECEDING AND CURRENT ROW)", part, c.Window, ties)
		stats = append(stats, fmt.Sprintf(aggregates[c.Fn], fmt.Sprintf("_x%d", i), frame)+" AS "+expr.QuoteName(c.Name))
		found = append(found, "coalesce("+expr.QuoteName(c.Name)+map[bool]string{true: " > 0", false: " IS NOT NULL"}[c.Fn == "count"]+", false)")
		counts.Spans = append(counts.Spans, c.Window)
	}
	slices.Sort(counts.Spans)
	counts.Spans = slices.Compact(counts.Spans)
	err := b.db.Exec(b.ctx, fmt.Sprintf(`CREATE TEMP TABLE %[1]s AS SELECT * FROM (
  SELECT %[2]s, %[3]s FROM (
    SELECT CAST(NULL AS BIGINT) AS %[2]s, %[4]s, %[5]s, CAST(_known AS HUGEINT) * %[6]d + row_number() OVER (PARTITION BY %[7]s, _known ORDER BY _row) AS _at
      FROM (SELECT *, greatest(%[8]s, %[9]s) + %[10]d AS _known, %[4]s FROM %[11]s AS r WHERE %[12]s) AS r
    UNION ALL BY NAME
    SELECT s.%[2]s, %[13]s, %[14]s, CAST(s.%[15]s AS HUGEINT) * %[6]d + %[16]d AS _at FROM spine AS s))
WHERE %[2]s IS NOT NULL`, name, colRow, strings.Join(stats, ", "), strings.Join(keys, ", "), strings.Join(facts, ", "), int64(ties), part,
		event, created, w.Delay, b.s.rows(w.Input), strings.Join(notNull, " AND "), strings.Join(left, ", "), strings.Join(nulls, ", "), colAt, place))
	if err != nil {
		return err
	}
	hit := strings.Join(found, " OR ")
	err = b.db.Row(b.ctx, fmt.Sprintf("SELECT count(*) FILTER (%[1]s), count(*) FILTER (NOT (%[1]s)) FROM %[2]s", hit, name), &counts.Present, &counts.Empty)
	b.meta.Windows = append(b.meta.Windows, counts)
	return err
}

// join is the point-in-time join. A row is known from available_at =
// greatest(event, created) + delay on; per key, in the order of available_at, it
// counts only if its event is no older than those before (an online store in
// which the newest event wins would have taken exactly these writes); of rows
// that become known at once the greatest (event, created, offset) wins. Then one
// ASOF join on available_at is exact, and the TTL is looked at after it.
func (b *builder) join(i int, name string, j lower.Join) error {
	keys, on, notNull := make([]string, len(j.Right)), make([]string, len(j.Right)), make([]string, len(j.Right))
	for i, k := range j.Right {
		keys[i] = expr.QuoteName(k)
		on[i] = "s." + expr.QuoteName("_key."+j.Left[i]) + " = r." + keys[i]
		notNull[i] = keys[i] + " IS NOT NULL"
	}
	by, rows := strings.Join(keys, ", "), b.s.rows(j.Input)
	counts := JoinCounts{Group: j.Group, Input: strings.TrimPrefix(j.Input, "source:")}
	values := func(present string, value func(i int) string) string {
		out := make([]string, len(j.Columns))
		for i, c := range j.Columns {
			out[i] = fmt.Sprintf("CASE WHEN %s THEN %s END AS %s", present, value(i), expr.QuoteName(c.Name))
		}
		return strings.Join(out, ", ")
	}
	if j.Static {
		var key string
		var n int64
		err := b.db.Rows(b.ctx, fmt.Sprintf("SELECT array_to_string([%s], ', '), count(*) AS _n FROM %s WHERE %s GROUP BY %s HAVING _n > 1 ORDER BY %s LIMIT 1",
			castAll(keys), rows, strings.Join(notNull, " AND "), by, by), func(scan func(...any) error) error { return scan(&key, &n) })
		if err != nil {
			return err
		}
		if n > 1 {
			return fault(fmt.Sprintf("snapshots[%d]", i), diag.DuplicateKey, "a static source has one row a key", "drop the others, or give the source a time", "source %q has %d rows with the key %s", counts.Input, n, key)
		}
		err = b.db.Exec(b.ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT s.%s, CASE WHEN r._row IS NULL THEN 1 ELSE 0 END AS _status, %s FROM spine AS s LEFT JOIN %s AS r ON %s",
			name, colRow, values("r._row IS NOT NULL", func(i int) string { return j.Columns[i].SQL }), rows, strings.Join(on, " AND ")))
		if err != nil {
			return err
		}
		return b.count(name, counts)
	}
	// Validation has set rows without a time aside; a null here would let greatest
	// pass over it.
	notNull = append(notNull, expr.QuoteName(j.Event)+" IS NOT NULL")
	if j.Created != "" {
		notNull = append(notNull, expr.QuoteName(j.Created)+" IS NOT NULL")
	}
	event := "epoch_us(" + expr.QuoteName(j.Event) + ")"
	created := event
	if j.Created != "" {
		created = "epoch_us(" + expr.QuoteName(j.Created) + ")"
	}
	// One order tells both: of rows that become known at once the last counts, and it
	// has the greatest event of them, so that it need not be told from those before.
	newest := "true"
	if j.Created != "" {
		newest = "_event = max(_event) OVER (known ROWS UNBOUNDED PRECEDING)"
	}
	facts := make([]string, len(j.Columns))
	for i, c := range j.Columns {
		facts[i] = fmt.Sprintf(", %s AS _v%d", c.SQL, i)
	}
	known := "known_" + name
	err := b.db.Exec(b.ctx, fmt.Sprintf(`CREATE TEMP TABLE %s AS SELECT * EXCLUDE (_created, _row) FROM (
  SELECT %s%s, _row, %s AS _event, %s AS _created, greatest(_event, _created) + %d AS _available FROM %s AS r WHERE %s)
WINDOW known AS (PARTITION BY %s ORDER BY _available, _event, _created, _row)
QUALIFY lead(_available) OVER known IS DISTINCT FROM _available AND %s`, known, by, strings.Join(facts, ""), event, created, j.Delay, rows, strings.Join(notNull, " AND "), by, newest))
	if err != nil {
		return err
	}
	var all, kept int64
	if err := b.db.Row(b.ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM %s WHERE %s), (SELECT count(*) FROM %s)", rows, strings.Join(notNull, " AND "), known), &all, &kept); err != nil {
		return err
	}
	counts.Superseded = all - kept
	fresh := "r._available IS NOT NULL"
	if j.TTL > 0 {
		fresh += fmt.Sprintf(" AND r._event >= s.%s - %d", colAt, j.TTL)
	}
	from := ">="
	if j.Earlier {
		from = ">"
	}
	err = b.db.Exec(b.ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT s.%s, CASE WHEN r._available IS NULL THEN 1 WHEN NOT (%s) THEN 2 ELSE 0 END AS _status, %s FROM spine AS s ASOF LEFT JOIN %s AS r ON %s AND s.%s %s r._available",
		name, colRow, fresh, values(fresh, func(i int) string { return fmt.Sprintf("r._v%d", i) }), known, strings.Join(on, " AND "), colAt, from))
	if err != nil {
		return err
	}
	if err := b.db.Exec(b.ctx, "DROP TABLE "+known); err != nil {
		return err
	}
	return b.count(name, counts)
}

func castAll(keys []string) string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = "CAST(" + k + " AS VARCHAR)"
	}
	return strings.Join(out, ", ")
}

func (b *builder) count(name string, c JoinCounts) error {
	q := "SELECT count(*) FILTER (_status = 0), count(*) FILTER (_status = 1), count(*) FILTER (_status = 2) FROM " + name
	if err := b.db.Row(b.ctx, q, &c.Present, &c.NotFound, &c.Expired); err != nil {
		return err
	}
	b.meta.Joins = append(b.meta.Joins, c)
	return nil
}

// datasetSplit gives every row its part.
func datasetSplit(ctx context.Context, s *Stage) error {
	a, err := decode[lower.SplitArgs](s)
	if err != nil {
		return err
	}
	k, ok := s.Kinds.Splits.Get(a.Kind)
	if !ok {
		return fmt.Errorf("no split kind %q", a.Kind)
	}
	job := kind.SplitJob{Args: a.Args, Seed: a.Seed, Files: a.Files, Task: kind.Task{Kind: a.Task}, Rows: s.In("dataset", "rows.parquet")}
	var ids []int64
	columns := map[string]table.Form{colRow: table.Ints, colLabel: table.Floats, colAt: table.Ints, colKnown: table.Ints, colGroup: table.Texts, colFile: table.Ints}
	targets := 1
	if a.Task == kind.Multilabel {
		meta, err := readJSON[Meta](s.In("meta", "meta.json"))
		if err != nil {
			return err
		}
		targets = meta.Task.Targets()
		for t := 1; t < targets; t++ {
			columns[labelColumn(t)] = table.Floats
		}
	}
	// Rows with the same set of labels are of one class here.
	sets := map[string]float64{}
	_, byColumn := k.(kind.ByColumn)
	if byColumn {
		columns[lower.SplitColumn] = table.Texts
	}
	err = table.Read(ctx, job.Rows, columns, func(b table.Batch) error {
		if byColumn {
			job.Column = append(job.Column, b.Texts(lower.SplitColumn)...)
		}
		ids = append(ids, b.Ints(colRow)...)
		if targets == 1 {
			job.Label = append(job.Label, b.Floats(colLabel)...)
		} else {
			for i := range b.Rows {
				set := make([]byte, targets)
				for t := range set {
					set[t] = byte(b.Floats(labelColumn(t))[i])
				}
				if _, ok := sets[string(set)]; !ok {
					sets[string(set)] = float64(len(sets))
				}
				job.Label = append(job.Label, sets[string(set)])
			}
		}
		job.Group = append(job.Group, b.Texts(colGroup)...)
		if a.Timed {
			job.Time = append(job.Time, b.Ints(colAt)...)
			job.Known = append(job.Known, b.Ints(colKnown)...)
		}
		for _, f := range b.Ints(colFile) {
			job.File = append(job.File, int32(f))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, ok := k.(kind.Commanded); ok {
		meta, err := readJSON[Meta](s.In("meta", "meta.json"))
		if err != nil {
			return err
		}
		db, err := s.sql(ctx, 0)
		if err != nil {
			return err
		}
		defer db.Close()
		work, clean, err := s.work()
		if err != nil {
			return err
		}
		defer clean()
		job.Task, job.Engine, job.Work = meta.Task, db, work
	}
	assign := k.Assign
	f, folded := k.(kind.Folded)
	if folded && a.Fold > 0 {
		assign = func(ctx context.Context, job kind.SplitJob) ([]kind.Part, error) {
			return f.AssignFold(ctx, job, a.Fold-1)
		}
	}
	parts, err := assign(ctx, job)
	if err != nil {
		return err
	}
	counts := make([]int64, len(kind.PartNames))
	out := make([]int64, len(parts))
	for i, p := range parts {
		counts[p]++
		out[i] = int64(p)
	}
	report := map[string]int64{}
	for p, n := range counts {
		report[kind.PartNames[p]] = n
	}
	s.Report["parts"] = report
	var faults executor.Faults
	in := ""
	if a.Fold > 0 {
		in = fmt.Sprintf(" in fold %d", a.Fold)
	}
	for _, p := range []kind.Part{kind.Train, kind.Test} {
		if counts[p] == 0 && (p == kind.Train || !folded || a.Fold > 0) {
			faults = append(faults, executor.Fault{Arg: "args", Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.EmptySplit, What: fmt.Sprintf("the split leaves no %s rows of %d%s", kind.PartNames[p], len(parts), in), Mend: "change the spans, shares or folds"}})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	if !kind.IsNumeric(a.Task) && a.Task != kind.Anomaly {
		classes := map[float64]bool{}
		for i, p := range parts {
			if p == kind.Train {
				classes[job.Label[i]] = true
			}
		}
		if len(classes) < 2 {
			return fault("args", diag.BadLabel, "there is nothing to tell apart", "change the split", "every training row%s has the same label", in)
		}
	}
	return table.Write(s.Out("parts", "parts.parquet"), []table.Column{{Name: colRow, Data: ids}, {Name: "part", Data: out}})
}
