// Copies up to 64 scalars of a device into slots of pinned host memory, as float64, int64 or 0/1.
// `gather.ptx` is this file: nvcc --ptx -arch=compute_75 -O3 gather.cu
#include <cuda_fp16.h>

struct Log {  // the same as `Launch` in hot.c
    const void *from[64];
    unsigned long long *slots;
    unsigned short place[64];
    unsigned char dtype[64];
    int count;
};

// A float of 8 bits: sign, `exponent` bits, the rest. With `bare`, 0x80 is the only NaN; otherwise
// all bits above the sign make one. There is no infinity: e5m2, which has one, is the upper half of a float16.
__device__ double small(unsigned bits, int exponent, int bias, bool bare) {
    int mantissa = 7 - exponent, power = (bits & 127) >> mantissa, rest = bits & ((1 << mantissa) - 1);
    if (bare ? bits == 128 : (bits & 127) == 127) return __longlong_as_double(0x7ff8000000000000);
    double size = power ? ldexp(1.0 + ldexp((double)rest, -mantissa), power - bias)
                        : ldexp((double)rest, 1 - bias - mantissa);
    return bits & 128 ? -size : size;
}

extern "C" __global__ void gather(const __grid_constant__ Log log) {
    int i = threadIdx.x;
    if (i >= log.count) return;
    const void *from = log.from[i];
    unsigned char byte = *(const unsigned char *)from;  // every dtype has one
    double number = 0;
    long long whole = 0;
    bool floats = true;
    switch (log.dtype[i]) {
        case 0: number = *(const float *)from; break;
        case 1: number = *(const double *)from; break;
        case 2: number = __half2float(*(const __half *)from); break;
        case 3: number = __uint_as_float((unsigned)*(const unsigned short *)from << 16); break;
        case 4: number = small(byte, 4, 7, false); break;
        case 5: number = __half2float(__ushort_as_half(byte << 8)); break;
        case 6: number = small(byte, 4, 8, true); break;
        case 7: number = small(byte, 5, 16, true); break;
        default: floats = false;
    }
    switch (log.dtype[i]) {
        case 8: whole = *(const signed char *)from; break;
        case 9: whole = *(const short *)from; break;
        case 10: whole = *(const int *)from; break;
        case 11: whole = *(const long long *)from; break;
        case 12: whole = byte; break;
        case 13: whole = *(const unsigned short *)from; break;
        case 14: whole = *(const unsigned int *)from; break;
        case 15: whole = *(const long long *)from; break;
        case 16: whole = byte != 0; break;
    }
    volatile unsigned long long *slot = log.slots + log.place[i];
    *slot = floats ? (unsigned long long)__double_as_longlong(number) : (unsigned long long)whole;
}
