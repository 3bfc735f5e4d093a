// Package failpoint lets a test kill the process, or make a step fail, at a named place of the change path.
//
// It does so only in binaries built with -tags failpoint, and does nothing in
// all others. There the environment says what happens where:
//
//	OUTRIDER_FAILPOINTS="ledger/committed=kill@3,ledger/commit=EIO@1"
//
// kill ends the process as SIGKILL does, EIO and ENOSPC make the step fail
// with that error; @3 means from the third time that the place is passed for
// kill, and the third time alone for an error.
package failpoint
