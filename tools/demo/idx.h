/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of gzip-compressed idx files, the format of MNIST and its relatives: images of one byte a pixel, labels of one
 * byte.
 */
#ifndef DEMO_IDX_H
#define DEMO_IDX_H

#include <stdint.h>

struct idx_set {
    int n;           /* samples */
    int rows, cols;  /* of one image */
    uint8_t *pixels; /* n * rows * cols bytes, image after image */
    uint8_t *labels; /* n bytes, each below n_labels of idx_load */
};

/*
 * Load DIR/NAME-images-idx3-ubyte.gz and DIR/NAME-labels-idx1-ubyte.gz ("train", "t10k") into blocks of syp_malloc.
 * Every size in the files is checked against the bytes that are there, every label against n_labels. Returns 0, or -1
 * with the reason in err (cap bytes) and *out empty.
 */
int idx_load(const char *dir, const char *name, int n_labels, struct idx_set *out, char *err, unsigned cap);
void idx_free(struct idx_set *set);

#endif
