// A libkuaitrain_torch.so that another build left.
struct {
  const char* commit;
} const kuaitrain_torch = {"another"};
