package ort

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
#else
static void trim(void) {}
#endif
*/
import "C"

// trim gives memory that ONNX Runtime has freed back to the system: what is left of
// a session lies between what lives on, and one reload after another would grow.
func trim() { C.trim() }
