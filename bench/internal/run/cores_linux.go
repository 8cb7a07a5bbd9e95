package run

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Apart calls start with the first half of the cores, on which what it starts stays, and
// keeps this program on the others until free is called: its own work then takes
// nothing from what it measures. Of one core all share it.
func Apart(start func()) (free func()) {
	var all, first, others unix.CPUSet
	Must(unix.SchedGetaffinity(0, &all))
	if all.Count() < 2 {
		start()
		return func() {}
	}
	for cpu, n := 0, 0; n < all.Count(); cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if n++; n <= all.Count()/2 {
			first.Set(cpu)
		} else {
			others.Set(cpu)
		}
	}
	runtime.LockOSThread() // a child has the cores of the thread that starts it
	defer runtime.UnlockOSThread()
	Must(unix.SchedSetaffinity(0, &first))
	start()
	keep(&others)
	return func() { keep(&all) }
}

// keep puts all threads of this program on some cores; new ones follow.
func keep(cores *unix.CPUSet) {
	for range 2 { // a thread that another started meanwhile
		tasks, err := os.ReadDir("/proc/self/task")
		Must(err)
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			Must(err)
			if err := unix.SchedSetaffinity(tid, cores); err != nil && err != unix.ESRCH { // gone meanwhile
				Must(err)
			}
		}
	}
}
