/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-demo: data-parallel training on Fashion-MNIST, the smallest program that uses the library as a training loop
 * does.
 *
 * Every rank holds all parameters in the symmetric region, computes the gradient of its share of each batch, and
 * all-reduces the gradients where they lie.  Since an all-reduce gives every rank the same bits, the parameters stay
 * equal on all ranks without ever being compared; the digests at the end show it.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "allocator/sympool.h"
#include "tools/demo/idx.h"
#include "tools/demo/mlp.h"

#define MOMENTUM 0.9f

struct options {
    int epochs, batch;
    double rate;
    uint64_t seed;
    const char *data;
    double require; /* test accuracy asked for; negative = not asked */
};

struct demo {
    struct options opt;
    int rank, n;
    struct idx_set train, test;
    float *params, *grad; /* symmetric region */
    float *velocity;      /* the rest: local heap */
    struct mlp_work work;
    uint8_t *labels; /* work.cap, of the samples in work.x */
    int *order;      /* train.n: the epoch's order of samples */
    int64_t allreduce_ns;
};

static const char usage[] =
    "usage: sympool-run -n RANKS sympool-demo [options]\n"
    "Train a 784-128-10 perceptron on Fashion-MNIST, data-parallel over the ranks of the job.\n"
    "\n"
    "  --epochs N     passes over the training set, 1 .. 1000 (default 10)\n"
    "  --batch N      samples per step over all ranks together, 1 .. 60000 (default 128)\n"
    "  --lr X         learning rate, above 0, at most 10 (default 0.03)\n"
    "  --seed N       seed of the initial parameters and of the order of samples (default 1)\n"
    "  --data DIR     folder of the idx files (default /usr/share/datasets/fashion-mnist)\n"
    "  --require X    print PASS or FAIL: fail, with exit status 1, when the test accuracy is below X (0 .. 1)\n"
    "  --help         this text\n"
    "\n"
    "Exit status: 0; 1 when something failed or the ranks' parameters differ; 2 for a wrong option.\n";

/* The other ranks learn of this rank's end from their next operation. */
static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *fmt, ...) {
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "sympool-demo: rank %d: %s\n", syp_rank(), text);
    exit(1);
}

static void must(int status, const char *what) {
    if (status != SYP_OK) die("%s: %s: %s", what, syp_strerror(status), syp_error_text());
}

static void *must_have(void *p, const char *what) {
    if (!p) die("memory for %s: %s", what, syp_error_text());
    return p;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ----------------------------------------------------------------------------------------------- options */

static _Noreturn void wrong_option(const char *name, const char *value) {
    fprintf(stderr, "sympool-demo: --%s %s: not a number in the option's range; see --help\n", name, value);
    exit(2);
}

static double parse_real(const char *name, const char *text, double min, double max) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= min && v <= max)) wrong_option(name, text);
    return v;
}

static int64_t parse_int(const char *name, const char *text, int64_t min, int64_t max) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || v < min || v > max) wrong_option(name, text);
    return v;
}

static void parse_options(int argc, char **argv, struct options *opt) {
    static const struct option names[] = {
        {"epochs", required_argument, NULL, 'e'}, {"batch", required_argument, NULL, 'b'},
        {"lr", required_argument, NULL, 'l'},     {"seed", required_argument, NULL, 's'},
        {"data", required_argument, NULL, 'd'},   {"require", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    *opt = (struct options){10, 128, 0.03, 1, "/usr/share/datasets/fashion-mnist", -1};
    int c;
    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'e':
            opt->epochs = (int)parse_int("epochs", optarg, 1, 1000);
            break;
        case 'b':
            opt->batch = (int)parse_int("batch", optarg, 1, 60000);
            break;
        case 'l':
            opt->rate = parse_real("lr", optarg, 1e-9, 10);
            break;
        case 's':
            opt->seed = (uint64_t)parse_int("seed", optarg, 0, INT64_MAX);
            break;
        case 'd':
            opt->data = optarg;
            break;
        case 'r':
            opt->require = parse_real("require", optarg, 0, 1);
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "sympool-demo: %s: no such argument; see --help\n", argv[optind]);
        exit(2);
    }
}

/* ---------------------------------------------------------------------------------------------- training */

/* First sample of rank r when n_samples are split over n ranks; the shares differ by at most one, and n may exceed the
 * samples. */
static int share_start(int n_samples, int r, int n) {
    return (int)((int64_t)n_samples * r / n);
}

/* Samples order[from .. from + n), or from .. from + n themselves when order is NULL, become the inputs of the model.
 */
static void take_samples(struct demo *d, const struct idx_set *set, const int *order, int from, int n) {
    for (int i = 0; i < n; i++) {
        int s = order ? order[from + i] : from + i;
        const uint8_t *pixels = set->pixels + (size_t)s * MLP_IN;
        float *x = d->work.x + (size_t)i * MLP_IN;
        for (int k = 0; k < MLP_IN; k++)
            x[k] = (float)pixels[k] * (1.0f / 255.0f);
        d->labels[i] = set->labels[s];
    }
}

/* Fisher-Yates; a function of seed and epoch alone, so equal on all ranks. */
static void shuffle(struct demo *d, int epoch) {
    uint64_t state = mlp_seed(d->opt.seed * 1000003u + (uint64_t)epoch);
    for (int i = 0; i < d->train.n; i++)
        d->order[i] = i;
    for (int i = d->train.n - 1; i > 0; i--) {
        int j = (int)(mlp_random(&state) % (uint64_t)(i + 1));
        int t = d->order[i];
        d->order[i] = d->order[j];
        d->order[j] = t;
    }
}

/* One step over samples order[from .. from + batch).  Returns how many of this rank's share were classified right
 * before it. */
static int step(struct demo *d, int from, int batch, double *loss) {
    int lo = share_start(batch, d->rank, d->n), hi = share_start(batch, d->rank + 1, d->n);
    take_samples(d, &d->train, d->order, from + lo, hi - lo);
    int right = mlp_forward(d->params, &d->work, hi - lo, d->labels, loss);
    mlp_backward(d->params, &d->work, hi - lo, d->labels, d->grad);

    int64_t start = now_ns();
    must(syp_allreduce(d->grad, d->grad, MLP_PARAMS, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL),
         "all-reduce of the gradients");
    d->allreduce_ns += now_ns() - start;

    mlp_update(d->params, d->velocity, d->grad, 1.0f / (float)batch, MOMENTUM, (float)d->opt.rate);
    return right;
}

static void train_epoch(struct demo *d, int epoch) {
    double loss = 0;
    int64_t sums[2] = {0, 0}; /* classified right; time in all-reduce */
    int64_t start = now_ns();
    d->allreduce_ns = 0;
    shuffle(d, epoch);
    for (int from = 0; from < d->train.n; from += d->opt.batch) {
        int left = d->train.n - from;
        sums[0] += step(d, from, left < d->opt.batch ? left : d->opt.batch, &loss);
    }
    int64_t wall = now_ns() - start;
    sums[1] = d->allreduce_ns;
    must(syp_allreduce(sums, sums, 2, SYP_INT64, SYP_SUM, SYP_COMM_WORLD, NULL), "all-reduce of the counts");
    must(syp_allreduce(&loss, &loss, 1, SYP_FLOAT64, SYP_SUM, SYP_COMM_WORLD, NULL), "all-reduce of the loss");
    if (d->rank == 0) {
        printf("epoch %2d: loss %.4f, training accuracy %.4f, %.0f samples/s, %.1f %% of the time in all-reduce\n",
               epoch, loss / d->train.n, (double)sums[0] / d->train.n, d->train.n * 1e9 / (double)wall,
               100.0 * (double)sums[1] / ((double)wall * d->n));
        fflush(stdout);
    }
}

/* Test accuracy; the test set is split over the ranks. */
static double evaluate(struct demo *d) {
    int64_t right = 0;
    double loss = 0;
    int lo = share_start(d->test.n, d->rank, d->n), hi = share_start(d->test.n, d->rank + 1, d->n);
    for (int from = lo; from < hi; from += d->work.cap) {
        int n = hi - from < d->work.cap ? hi - from : d->work.cap;
        take_samples(d, &d->test, NULL, from, n);
        right += mlp_forward(d->params, &d->work, n, d->labels, &loss);
    }
    must(syp_allreduce(&right, &right, 1, SYP_INT64, SYP_SUM, SYP_COMM_WORLD, NULL), "all-reduce of the test counts");
    double accuracy = (double)right / d->test.n;
    if (d->rank == 0) printf("test accuracy %.4f (%" PRId64 " of %d)\n", accuracy, right, d->test.n);
    fflush(stdout);
    return accuracy;
}

/* ----------------------------------------------------------------------------------------------- digests */

static uint64_t fnv64(const void *data, size_t len) {
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* Every rank publishes the digest of its parameters in the symmetric region and reads all others' there.  1 = all
 * equal. */
static int compare_digests(struct demo *d) {
    uint64_t *own = must_have(syp_symm_malloc(sizeof *own), "the digest");
    *own = fnv64(d->params, MLP_PARAMS * sizeof *d->params);
    must(syp_barrier(SYP_COMM_WORLD, NULL), "barrier before reading the digests");
    int equal = 1;
    for (int r = 0; r < d->n; r++) {
        const uint64_t *peer = must_have(syp_peer_ptr(own, r), "reading a peer's digest");
        if (*peer == *own) continue;
        equal = 0;
        fprintf(stderr, "sympool-demo: rank %d has parameters with digest %016" PRIx64 ", rank %d has %016" PRIx64 "\n",
                d->rank, *own, r, *peer);
    }
    if (d->rank == 0 && equal)
        printf("parameters of %d rank%s: digest %016" PRIx64 ", all equal\n", d->n, d->n == 1 ? "" : "s", *own);
    must(syp_barrier(SYP_COMM_WORLD, NULL), "barrier after reading the digests");
    must(syp_symm_free(own), "freeing the digest");
    return equal;
}

static void print_pool(void) {
    syp_pool_info info = {.size = sizeof info};
    must(syp_pool_query(&info), "figures of the pool");
    double mib = 1.0 / (1 << 20);
    printf("pool of rank 0: high-water mark %.1f MiB (symmetric %.1f, heap %.1f) of %.0f MiB, at most %.1f MiB "
           "committed\n",
           (double)info.used_peak * mib, (double)info.symm_peak * mib, (double)info.heap_peak * mib,
           (double)info.local_mem_size * mib, (double)info.committed_peak * mib);
}

/* ------------------------------------------------------------------------------------------------ set up */

static void load_data(struct demo *d) {
    char err[1024];
    if (idx_load(d->opt.data, "train", MLP_OUT, &d->train, err, sizeof err) ||
        idx_load(d->opt.data, "t10k", MLP_OUT, &d->test, err, sizeof err))
        die("%s", err);
    if (d->train.rows * d->train.cols != MLP_IN || d->test.rows * d->test.cols != MLP_IN)
        die("the images have %d x %d and %d x %d pixels, the model takes %d", d->train.rows, d->train.cols,
            d->test.rows, d->test.cols, MLP_IN);
}

static void set_up(struct demo *d) {
    d->rank = syp_rank();
    d->n = syp_world_size();
    load_data(d);

    size_t bytes = MLP_PARAMS * sizeof(float);
    int cap = d->opt.batch / d->n + 1;
    if (cap < 64) cap = 64; /* for the test set */
    d->params = must_have(syp_symm_malloc(bytes), "the parameters");
    d->grad = must_have(syp_symm_malloc(bytes), "the gradients");
    d->velocity = must_have(syp_calloc(1, bytes), "the velocities");
    mlp_work_carve(&d->work, cap, must_have(syp_malloc(mlp_work_floats(cap) * sizeof(float)), "the activations"));
    d->labels = must_have(syp_malloc((size_t)cap), "the labels");
    d->order = must_have(syp_malloc((size_t)d->train.n * sizeof *d->order), "the order of samples");

    if (d->rank == 0) {
        mlp_init(d->params, d->opt.seed);
        printf("training a %d-%d-%d perceptron on %d images: %d rank%s, batch %d, learning rate %g, seed %" PRIu64 "\n",
               MLP_IN, MLP_HIDDEN, MLP_OUT, d->train.n, d->n, d->n == 1 ? "" : "s", d->opt.batch, d->opt.rate,
               d->opt.seed);
        fflush(stdout);
    }
    must(syp_broadcast(d->params, bytes, 0, SYP_COMM_WORLD, NULL), "broadcast of the initial parameters");
}

static void tear_down(struct demo *d) {
    syp_free(d->order);
    syp_free(d->labels);
    syp_free(d->work.x); /* start of the one block that mlp_work_carve divided */
    syp_free(d->velocity);
    must(syp_symm_free(d->grad), "freeing the gradients");
    must(syp_symm_free(d->params), "freeing the parameters");
    idx_free(&d->test);
    idx_free(&d->train);
}

int main(int argc, char **argv) {
    struct demo d = {.rank = -1};
    parse_options(argc, argv, &d.opt);
    must(syp_init_env(), "joining the job");
    set_up(&d);
    for (int epoch = 1; epoch <= d.opt.epochs; epoch++)
        train_epoch(&d, epoch);
    double accuracy = evaluate(&d);
    int ok = compare_digests(&d);
    if (d.rank == 0) print_pool();
    if (d.opt.require >= 0) {
        int enough = accuracy >= d.opt.require;
        if (d.rank == 0)
            printf("%s: test accuracy %.4f, required %.4f\n", enough && ok ? "PASS" : "FAIL", accuracy, d.opt.require);
        ok = ok && enough;
    }
    tear_down(&d);
    must(syp_finalize(), "leaving the job");
    return ok ? 0 : 1;
}
