// Package load asks a server of this machine as fast as it answers, or at a fixed
// rate, and tells exactly how long the answers took.
//
// It shares the machine's cores with what it measures, so it is one thread over
// epoll that writes requests made beforehand and allocates nothing while it runs.
// It speaks HTTP/1.1 over loopback, on connections that stay open, and needs Linux.
package load
