#include <memory>
#include <vector>

#include "harness/backends/cuda/case_image.h"
#include "harness/backends/cuda/layer_backend.h"

namespace attn::harness {
namespace {

class CudaPreparedRuns final : public PreparedRuns {
 public:
  CudaPreparedRuns(const Case& c, const CudaOptions& options, int copies)
      : case_(c),
        layer_(c.config, c.weights, layer_options_of(options)),
        plan_(layer_.plan(shape_of(c))),
        image_(lay_out(c, layer_, plan_, capacity_of(c))) {
    for (int i = 0; i < copies; ++i) {
      memory_.emplace_back(image_.image.size());
      image_.image.upload(memory_.back().data(), stream_.get());
      stream_.synchronize();
      gpu::LayerTensors t = tensors_of(c, image_);
      t.qkv = t.q_norm = t.k_norm = t.q_rope = t.k_rope = nullptr;
      if (!c.config.starts_at_attention()) t.attn_out = t.lse = nullptr;
      tensors_.push_back(t);
      workspaces_.push_back(image_.image.at<void>(image_.workspace));
    }
    launch_all(stream_.get());  // loads the kernels
    stream_.synchronize();
    graph_ = std::make_unique<gpu::Graph>(stream_,
                                          [&](gpu::StreamHandle stream) { launch_all(stream); });
  }

  double milliseconds(int rounds, bool in_graph) override {
    timer_.start(stream_.get());
    for (int r = 0; r < rounds; ++r) {
      if (in_graph) {
        graph_->launch(stream_.get());
      } else {
        launch_all(stream_.get());
      }
    }
    timer_.stop(stream_.get());
    return timer_.milliseconds();
  }

  Trace output(int copy) override {
    image_.image.use(memory_.at(static_cast<std::size_t>(copy)).data());
    image_.image.download(stream_);
    image_.image.check();
    return read_last(case_, image_);
  }

 private:
  Trace read_last(const Case& c, const CaseImage& image) const {
    const Trace all = read_trace(c, image, layer_.qkv_width());
    Trace trace;
    const Stage last = c.config.starts_at_attention()                 ? Stage::kAttnOut
                       : c.config.entry_point == EntryPoint::kForward ? Stage::kOut
                                                                      : Stage::kCacheK;
    trace[last] = all[last];
    trace.cache = all.cache;
    return trace;
  }
  void launch_all(gpu::StreamHandle stream) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      layer_.run(plan_, tensors_[i], workspaces_[i], stream);
    }
  }

  const Case& case_;
  gpu::Stream stream_;
  gpu::AttentionLayer layer_;
  gpu::LayerPlan plan_;
  CaseImage image_;
  std::vector<gpu::Buffer> memory_;
  std::vector<gpu::LayerTensors> tensors_;
  std::vector<void*> workspaces_;
  std::unique_ptr<gpu::Graph> graph_;
  gpu::Timer timer_;
};

}  // namespace

std::unique_ptr<PreparedRuns> prepare_runs(const Case& c, const CudaOptions& options, int copies) {
  return std::make_unique<CudaPreparedRuns>(c, options, copies);
}

}  // namespace attn::harness
