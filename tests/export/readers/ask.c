/* Asks a SavedModel's serving_default through TensorFlow's C interface alone.
 *
 *   ask LIBTENSORFLOW MODEL_FOLDER INPUT:0 OUTPUT:0 ROWS COLUMNS < float32 rows > float32 answers
 *
 * INPUT and OUTPUT name operations of the graph, as `saved_model_cli show` prints them.
 * The library is opened when it runs: linking half a gigabyte takes minutes.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

static void *library;
#define CALL(name) ((__typeof__(&name))dlsym(library, #name))

static TF_Output output_of(TF_Graph *graph, char *name) {
  char *colon = strrchr(name, ':');
  int index = atoi(colon + 1);
  *colon = 0;
  TF_Output output = {CALL(TF_GraphOperationByName)(graph, name), index};
  if (output.oper == NULL) {
    fprintf(stderr, "The graph has no operation %s.\n", name);
    exit(1);
  }
  return output;
}

static void check(TF_Status *status) {
  if (CALL(TF_GetCode)(status) != TF_OK) {
    fprintf(stderr, "%s\n", CALL(TF_Message)(status));
    exit(1);
  }
}

int main(int count, char **arguments) {
  if (count != 7) {
    fprintf(stderr, "Expected LIBTENSORFLOW MODEL_FOLDER INPUT:0 OUTPUT:0 ROWS COLUMNS.\n");
    return 2;
  }
  library = dlopen(arguments[1], RTLD_NOW);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  TF_Status *status = CALL(TF_NewStatus)();
  TF_Graph *graph = CALL(TF_NewGraph)();
  TF_SessionOptions *options = CALL(TF_NewSessionOptions)();
  const char *tags[] = {"serve"};
  TF_Session *session =
      CALL(TF_LoadSessionFromSavedModel)(options, NULL, arguments[2], tags, 1, graph, NULL, status);
  check(status);
  TF_Output input = output_of(graph, arguments[3]), output = output_of(graph, arguments[4]);
  int64_t shape[] = {atoll(arguments[5]), atoll(arguments[6])};
  size_t size = sizeof(float) * shape[0] * shape[1];
  TF_Tensor *rows = CALL(TF_AllocateTensor)(TF_FLOAT, shape, 2, size), *answers = NULL;
  if (fread(CALL(TF_TensorData)(rows), 1, size, stdin) != size) {
    fprintf(stderr, "Expected %zu bytes of rows.\n", size);
    return 1;
  }
  CALL(TF_SessionRun)(session, NULL, &input, &rows, 1, &output, &answers, 1, NULL, 0, NULL, status);
  check(status);
  fwrite(CALL(TF_TensorData)(answers), 1, CALL(TF_TensorByteSize)(answers), stdout);
  return 0;
}
