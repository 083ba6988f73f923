/* Acts with an exported policy, by ONNX Runtime's C API and nothing else.

       jtrust export RUN_DIR --format onnx --output policy.onnx
       cc -O2 onnx_policy.c -I ONNXRUNTIME/include -L ONNXRUNTIME/lib -lonnxruntime -o onnx_policy
       ./onnx_policy policy.onnx < observations.txt

   Reads observations as numbers between blanks, and writes a line of actions for each. ONNXRUNTIME
   is where ONNX Runtime's release for C was unpacked; Debian 13 has it as libonnxruntime-dev. */

#include <stdio.h>
#include <stdlib.h>
#include <onnxruntime_c_api.h>

static const OrtApi *ort;

/* Ends the program where ONNX Runtime reports an error. */
static void check(OrtStatus *status) {
    if (status == NULL) return;
    fprintf(stderr, "onnx_policy: %s\n", ort->GetErrorMessage(status));
    ort->ReleaseStatus(status);
    exit(1);
}

static void fail(const char *what) {
    fprintf(stderr, "onnx_policy: %s\n", what);
    exit(1);
}

/* How many numbers an observation has: the input is [batch, size]. */
static int64_t observation_size(const OrtSession *session) {
    OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *tensor;
    int64_t shape[2];
    size_t inputs, rank;
    check(ort->SessionGetInputCount(session, &inputs));
    if (inputs != 1) fail("the policy samples; export its mode, without --stochastic");
    check(ort->SessionGetInputTypeInfo(session, 0, &type));
    check(ort->CastTypeInfoToTensorInfo(type, &tensor));
    check(ort->GetDimensionsCount(tensor, &rank));
    if (rank != 2) fail("the first input is not [batch, size]");
    check(ort->GetDimensions(tensor, shape, 2));
    ort->ReleaseTypeInfo(type);
    return shape[1];
}

/* One line: real numbers, or the number of a discrete action. */
static void print_actions(OrtValue *actions) {
    OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType kind;
    size_t count;
    void *numbers;
    check(ort->GetTensorTypeAndShape(actions, &info));
    check(ort->GetTensorElementType(info, &kind));
    check(ort->GetTensorShapeElementCount(info, &count));
    ort->ReleaseTensorTypeAndShapeInfo(info);
    check(ort->GetTensorMutableData(actions, &numbers));
    for (size_t i = 0; i < count; i++) {
        if (kind == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32)
            printf("%d", ((int32_t *)numbers)[i]);
        else
            printf("%.9g", ((float *)numbers)[i]);
        putchar(i + 1 < count ? ' ' : '\n');
    }
}

int main(int argc, char **argv) {
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    if (argc != 2) fail("usage: onnx_policy POLICY.onnx < OBSERVATIONS");
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (ort == NULL) fail("the library is older than the header");
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "onnx_policy", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, 1)); /* a policy is too small for more */
    check(ort->CreateSession(env, argv[1], options, &session));
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

    const int64_t size = observation_size(session), shape[2] = {1, size};
    float *observation = malloc(size * sizeof(float));
    const char *inputs[] = {"observations"}, *outputs[] = {"actions"};
    OrtValue *input, *actions;
    /* The tensor lies on `observation`, so it is made once and filled again for each step. */
    check(ort->CreateTensorWithDataAsOrtValue(
        memory, observation, size * sizeof(float), shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        &input));
    int64_t filled = 0;
    while (scanf("%f", &observation[filled]) == 1) {
        if (++filled < size) continue;
        filled = 0;
        actions = NULL;
        check(ort->Run(session, NULL, inputs, (const OrtValue *const *)&input, 1, outputs, 1,
                       &actions));
        print_actions(actions);
        ort->ReleaseValue(actions);
    }
    if (filled != 0) fail("the last observation is not whole");

    free(observation);
    ort->ReleaseValue(input);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options);
    ort->ReleaseEnv(env);
    return 0;
}
