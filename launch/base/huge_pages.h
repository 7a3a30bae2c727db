#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace kt {

/// Memory in huge pages, as far as an array fills whole ones, where the system has them: for arrays that are read in random
/// order, where half of the time would go into finding the pages, and for large ones that live as long as one use of them,
/// where it would go into getting the pages.
template <class T>
struct HugePageAllocator {
  using value_type = T;
  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}

  T* allocate(size_t n) {
    constexpr size_t kHugePage = 2 << 20, kSmallPage = 4096;
    const size_t bytes = (n * sizeof(T) + kSmallPage - 1) / kSmallPage * kSmallPage;
    const size_t in_huge_pages = bytes / kHugePage * kHugePage;
    void* memory = std::aligned_alloc(in_huge_pages > 0 ? kHugePage : kSmallPage, bytes);
    if (!memory && n > 0) throw std::bad_alloc();
    // A wish: small pages do as well, only slower. What is left over would take a whole huge page.
    if (in_huge_pages > 0) madvise(memory, in_huge_pages, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }
  friend bool operator==(const HugePageAllocator&, const HugePageAllocator&) { return true; }
};

/// Rows of 16 floats and multiples do not cross cache lines.
using AlignedFloats = std::vector<float, HugePageAllocator<float>>;
/// Begins where a page does, wherever it lies: what a BLAS makes of its operands' alignment is the same in every run.
using AlignedDoubles = std::vector<double, HugePageAllocator<double>>;

/// So many elements, each of which is written before it is read: nothing sets them at first.
template <class T>
class HugeArray {
 public:
  HugeArray() = default;
  explicit HugeArray(size_t n) : elements_(HugePageAllocator<T>().allocate(n)), size_(n) {}

  T* data() const { return elements_.get(); }
  size_t size() const { return size_; }
  T* begin() const { return data(); }
  T* end() const { return data() + size_; }
  T& operator[](size_t i) const { return data()[i]; }

 private:
  struct Free {
    void operator()(T* elements) const { std::free(elements); }
  };
  std::unique_ptr<T[], Free> elements_;
  size_t size_ = 0;
};

}  // namespace kt
