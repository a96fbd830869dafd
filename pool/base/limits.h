/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of this process in words, for messages: a refusal without the figure that caused it helps nobody.
 */
#ifndef SYP_BASE_LIMITS_H
#define SYP_BASE_LIMITS_H

/* Put the limits that can be behind this errno (either sign) after the text of the record just set.  Returns the record's code. */
int err_limits(int sys_errno);

#endif
