/* A management library with two GPUs and no driver, for the tests: what it says changes with time. The first GPU tells
 * everything; the second has no power sensor. Files beside the library bring trouble about while it runs:
 *
 *   lost    the second GPU has fallen off the bus
 *   third   there is a third GPU, which is cut into instances
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;

static const struct { const char *uuid, *name; unsigned long long gib; } GPUS[] = {
    {"GPU-00000000-0000-0000-0000-00000000000a", "NVIDIA H100 80GB HBM3", 80},
    {"GPU-00000000-0000-0000-0000-00000000000b", "NVIDIA L4", 24},
    {"GPU-00000000-0000-0000-0000-00000000000c", "NVIDIA H100 80GB HBM3", 80},
};

static int there(const char *name) {
    Dl_info self;
    char path[4096];
    if (!dladdr((void *)there, &self)) return 0;
    const char *slash = strrchr(self.dli_fname, '/');
    if (!slash) return 0;
    snprintf(path, sizeof path, "%.*s/%s", (int)(slash - self.dli_fname), self.dli_fname, name);
    return access(path, F_OK) == 0;
}

static unsigned seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (unsigned)now.tv_sec;
}

/* Handles are indices, one higher, so that none is null. */
static unsigned index_of(void *device) { return (unsigned)(size_t)device - 1; }
static void *handle(unsigned index) { return (void *)(size_t)(index + 1); }
static int fail(void *device) { return index_of(device) == 1 && there("lost") ? LOST : SUCCESS; }

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "570.86.10");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = there("third") ? 3 : 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 2) return INVALID;
    *device = handle(index);
    return fail(*device);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    for (unsigned index = 0; index < 3; index++) {
        if (strcmp(uuid, GPUS[index].uuid) == 0) {
            *device = handle(index);
            return fail(*device);
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "%s", GPUS[index_of(device)].uuid);
    return fail(device);
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    snprintf(text, length, "%s", GPUS[index_of(device)].name);
    return fail(device);
}

int nvmlDeviceGetMemoryInfo_v2(void *device, Memory *memory) {
    memory->total = GPUS[index_of(device)].gib << 30;
    memory->reserved = 0;
    memory->used = ((unsigned long long)(seconds() % 16) + 1) << 30;
    memory->free = memory->total - memory->used;
    return fail(device);
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = index_of(device) == 1 ? 8 : 9;
    *minor = index_of(device) == 1 ? 9 : 0;
    return fail(device);
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    if (index_of(device) == 1) return NOT_SUPPORTED;
    *current = *pending = index_of(device) == 2;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) {
    rates->gpu = seconds() % 100;
    rates->memory = 1;
    return fail(device);
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 40 + seconds() % 20;
    return fail(device);
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    if (index_of(device) == 1) return NOT_SUPPORTED;
    *milliwatts = 100000 + seconds() % 1000;
    return SUCCESS;
}
