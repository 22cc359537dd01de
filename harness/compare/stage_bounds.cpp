#include "harness/compare/stage_bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attn::harness {
namespace {

double square(double x) { return x * x; }

/// x with each element's sign replaced by that of `sign_of`: the coherent part of an error.
RowMatrix with_sign(const RowMatrix& magnitude, const RowMatrix& sign_of) {
  return magnitude.cwiseProduct(sign_of.cwiseSign());
}

/// The sums of propagate() for every element of x W^T.
struct ProjectionPropagation {
  RowMatrix linear, squares, coherent, variance, coherent_deviation;

  ProjectionPropagation(const Bounded& x, const RowMatrix& w, const JointErrors& joint) {
    const RowMatrix w2 = w.cwiseAbs2();
    linear = x.d * w.cwiseAbs().transpose();
    coherent_deviation = with_sign(x.s, x.y) * w.transpose();
    if (joint.given()) {  // allowances do not add in quadrature
      linear = linear.cwiseMin(joint.linear);
      squares = linear.cwiseAbs2();
      coherent = linear;
      variance = joint.variance;
      return;
    }
    squares = x.d.cwiseAbs2() * w2.transpose();
    coherent = with_sign(x.d, x.y) * w.transpose();
    variance = x.s.cwiseAbs2() * w2.transpose();
  }
  Propagated at(Eigen::Index r, Eigen::Index c) const {
    return propagate(
        {linear(r, c), squares(r, c), coherent(r, c), variance(r, c), coherent_deviation(r, c)});
  }
};

/// Clipping at c: what lies beyond c by more than d stays at c, which the backend may have rounded.
void clip_element(double c, ElementType type, double& y, Allowance& a, double& s) {
  const double beyond = std::abs(y) - c;
  if (beyond <= 0.0) return;
  const double d = a.total();
  const double kept = std::max(0.0, d - beyond);
  const double share = d > 0.0 ? kept / d : 0.0;
  a = {share * a.rounding + unit_roundoff(type) * c,
       share * a.sum,
       share * a.operand,
       share * a.scores,
       share * a.probabilities,
       share * a.propagation,
       share * a.codes};
  y = std::copysign(c, y);
  s = std::min(s, a.total());
}

/// Sum over the parts of |x w^T| of each part's columns; empty when there are no parts.
RowMatrix magnitude_of_parts(const RowMatrix& x, const RowMatrix& w,
                             const std::vector<Range>& parts) {
  if (parts.empty()) return {};
  RowMatrix sum = RowMatrix::Zero(x.rows(), w.rows());
  for (const Range& part : parts) {
    sum += (x.middleCols(part.first, part.count) * w.middleCols(part.first, part.count).transpose())
               .cwiseAbs();
  }
  return sum;
}

/// The products x W^T of a projection and what computing them is off by.
class ProductError {
 public:
  ProductError(const RowMatrix& x, const Projection& p, const Arithmetic& arithmetic)
      : p_(p),
        arithmetic_(arithmetic),
        sum_(arithmetic.projection_acc, p.weight.cols(),
             chain_length(p.weight.cols(), arithmetic.lanes)),
        value_(x * p.weight.transpose()),
        magnitude_(x.cwiseAbs() * p.weight.cwiseAbs().transpose()),
        parts_(magnitude_of_parts(x, p.weight, p.parts)),
        minima_(magnitude_of_parts(x, p.minima, p.blocks)) {
    if (sum_.needs_e() || arithmetic.operand_roundoff > 0.0) {
      squares_ = x.cwiseAbs2() * p.weight.cwiseAbs2().transpose();
    }
    if (p.clipped.size() != 0) clipped_ = x * p.clipped.transpose();
    if (p.ties.size() != 0) ties_ = x.cwiseAbs() * p.ties.transpose();
  }

  double value(Eigen::Index r, Eigen::Index c) const { return value_(r, c); }

  /// That of y = value + bias for exact x, before y is rounded to its type.
  Allowance own(Eigen::Index r, Eigen::Index c, double y) const {
    const double u = elementary_roundoff(arithmetic_.projection_acc);
    const double u_operand = arithmetic_.operand_roundoff;
    const double g = value_(r, c), a = magnitude_(r, c);
    const double e = squares_.size() != 0 ? std::sqrt(squares_(r, c)) : 0.0;
    Allowance own;
    own.sum = sum_(g, a, e);
    if (u_operand > 0.0) own.operand = operand_error(u_operand, g, a, e);
    if (clipped_.size() != 0) own.operand += p_.clip_error * std::abs(clipped_(r, c));
    own.operand += p_.scale_error * a;
    // The sum of codes is what remains of it and the minima's, which is subtracted: twice.
    if (minima_.size() != 0) own.operand += 2.0 * p_.scale_error * minima_(r, c);
    if (ties_.size() != 0) own.codes = ties_(r, c);
    own.rounding =
        2.0 * u * (std::abs(y) + std::abs(g)) + static_cast<double>(p_.weight.cols()) * 0x1p-126;
    return own;
  }

  /// Rounding of the devices' parts, whose sum is off by d already.
  double part_rounding(Eigen::Index r, Eigen::Index c, double d) const {
    if (parts_.size() == 0) return 0.0;
    return static_cast<double>(p_.parts.size()) * rounding(arithmetic_.partial, 0.0, d) +
           unit_roundoff(arithmetic_.partial) * parts_(r, c);
  }
  double part_variance(Eigen::Index r, Eigen::Index c) const {
    return parts_.size() == 0 ? 0.0 : square(rounding_deviation(arithmetic_.partial, parts_(r, c)));
  }

 private:
  const Projection& p_;
  const Arithmetic& arithmetic_;
  SumBound sum_;
  RowMatrix value_, magnitude_, parts_, minima_, squares_, clipped_, ties_;
};

void put(Bounded& out, const BoundOptions& options, Eigen::Index r, Eigen::Index c,
         const Allowance& a, double s) {
  out.d(r, c) = a.total();
  if (options.deviations) out.s(r, c) = s;
  if (options.parts) out.parts[static_cast<std::size_t>(r * out.y.cols() + c)] = a;
}

Bounded make_result(Eigen::Index rows, Eigen::Index columns, const BoundOptions& options) {
  Bounded out;
  out.y.resize(rows, columns);
  out.d.resize(rows, columns);
  if (options.deviations) out.s.resize(rows, columns);
  if (options.parts) out.parts.resize(static_cast<std::size_t>(rows * columns));
  return out;
}

/// Root-mean-square norm of one head of one row.
struct NormedHead {
  double inverse = 0.0;  ///< r = 1 / sqrt(ms), ms = mean x^2 + eps
  /// r of a backend that rounds eps to its type, divided by r: eps may be most of ms, and float16
  /// turns a small eps into 0, so this is no matter of roundoff.
  double eps_ratio = 1.0;
  double rho = 0.0;       ///< relative error of r, from either eps
  double variance = 0.0;  ///< of r, relative
};

/// d and s are null for an exact input.
NormedHead norm_of_head(const double* x, const double* d, const double* s, Eigen::Index n,
                        double eps, const Arithmetic& arithmetic) {
  double sum = 0.0, linear = 0.0, quadratic = 0.0, d_squares = 0.0, variance = 0.0;
  for (Eigen::Index i = 0; i < n; ++i) {
    const double x2 = square(x[i]);
    sum += x2;
    if (d == nullptr) continue;
    const double d2 = square(d[i]);
    linear += std::abs(x[i]) * d[i];
    quadratic += x2 * d2 + d2 * d2 / 2.0;
    d_squares += d2;
    variance += x2 * square(s[i]);
  }
  const double count = static_cast<double>(n);
  const double rounded_eps = round_to(arithmetic.norm_eps, eps);
  NormedHead h;
  h.inverse = 1.0 / std::sqrt(sum / count + eps);
  // 0 / 0 where the rounded eps is 0 and so is x: NaN, as the declared arithmetic gives.
  h.eps_ratio = std::sqrt((sum / count + eps) / (sum / count + rounded_eps));
  if (sum + rounded_eps == 0.0) h.inverse = std::numeric_limits<double>::quiet_NaN();
  const double u = elementary_roundoff(arithmetic.projection_acc);
  const double own = u * (count / 2.0 + std::sqrt(count) + 8.0) + kReferenceRoundoff;
  const double weight = square(h.inverse * std::max(1.0, h.eps_ratio)) / count;
  h.rho = own + weight * (std::min(linear, kAllowanceDeviations * std::sqrt(quadratic)) +
                          d_squares / 2.0);
  h.variance = square(own) / 3.0 + square(weight) * variance + square(h.eps_ratio - 1.0);
  return h;
}

}  // namespace

Bounded Bounded::zeros(Eigen::Index rows, Eigen::Index columns) {
  return {RowMatrix::Zero(rows, columns),
          RowMatrix::Zero(rows, columns),
          RowMatrix::Zero(rows, columns),
          {}};
}

Bounded project(const Bounded& x, const Projection& p, ElementType result,
                const BoundOptions& options, const JointErrors& joint, bool codes) {
  const Arithmetic& arithmetic = options.arithmetic;
  const Eigen::Index rows = x.y.rows(), columns = p.weight.rows();
  const double u_result = unit_roundoff(result);
  const bool has_bias = p.bias.size() != 0;
  const ProductError product(x.y, p, arithmetic);
  std::optional<ProjectionPropagation> propagation;
  if (!x.exact()) propagation.emplace(x, p.weight, joint);

  Bounded out = make_result(rows, columns, options);
  for (Eigen::Index r = 0; r < rows; ++r) {
    for (Eigen::Index c = 0; c < columns; ++c) {
      const double g = product.value(r, c);
      double y = has_bias ? g + p.bias(c) : g;
      Allowance allowance = product.own(r, c, y);
      const double own = allowance.total();
      const Propagated in = propagation ? propagation->at(r, c) : Propagated{};
      (codes ? allowance.codes : allowance.propagation) += in.allowance;
      allowance.rounding += product.part_rounding(r, c, allowance.total());
      const double before = allowance.total();
      allowance.rounding += rounding(result, y, before);
      double variance = square(own) / 3.0 + square(rounding_deviation(result, y)) + in.variance +
                        product.part_variance(r, c);
      if (arithmetic.round_twice && has_bias) {
        allowance.rounding += u_result * (std::abs(g) + before);
        variance += square(rounding_deviation(result, g));
      }
      double s = std::sqrt(variance);
      if (p.clip_activations) clip_element(*p.clip_activations, result, y, allowance, s);
      out.y(r, c) = y;
      put(out, options, r, c, allowance, s);
    }
  }
  return out;
}

Bounded normalize(const Bounded& x, const Eigen::VectorXd& gamma, double eps,
                  const BoundOptions& options) {
  const Arithmetic& arithmetic = options.arithmetic;
  const Eigen::Index n = gamma.size(), heads = x.y.cols() / n;
  const double largest = std::sqrt(static_cast<double>(n));  // |x r| <= sqrt(D) always
  const int roundings = arithmetic.round_twice ? 2 : 1;
  const double u = unit_roundoff(arithmetic.store);
  Bounded out = make_result(x.y.rows(), x.y.cols(), options);
  for (Eigen::Index r = 0; r < x.y.rows(); ++r) {
    for (Eigen::Index head = 0; head < heads; ++head) {
      const Eigen::Index first = head * n;
      const NormedHead h = norm_of_head(&x.y(r, first), x.exact() ? nullptr : &x.d(r, first),
                                        x.exact() ? nullptr : &x.s(r, first), n, eps, arithmetic);
      const double grown = h.inverse * std::max(1.0, h.eps_ratio);
      for (Eigen::Index i = 0; i < n; ++i) {
        const double g = std::abs(gamma(i));
        const double y = x.y(r, first + i) * h.inverse * gamma(i), abs_y = std::abs(y);
        const double d_in = x.exact() ? 0.0 : x.d(r, first + i);
        const double s_in = x.exact() ? 0.0 : x.s(r, first + i);
        const double eps_error = abs_y * std::abs(h.eps_ratio - 1.0);
        const double grown_y = abs_y * std::max(1.0, h.eps_ratio);
        // |y| <= |g| sqrt(D) always, of the backend too.
        const double most = abs_y + 1.001 * g * largest;
        double error = most;
        if (h.rho < 0.5) {
          error = eps_error + (grown_y * h.rho + g * grown * d_in * (1.0 + h.rho)) / (1.0 - h.rho);
        }
        error = std::min(error, most);
        Allowance a;
        // The share of the inputs' errors: all of it but the norm's own relative error.
        a.propagation = x.exact() ? 0.0 : error;
        a.sum = x.exact() ? error : 0.0;
        for (int k = 0; k < roundings; ++k) {
          a.rounding +=
              u * (abs_y + a.total()) + 2.0 * underflow_error(arithmetic.store) * std::max(1.0, g);
        }
        const double variance = square(g * grown * s_in) + square(y) * h.variance +
                                roundings * square(rounding_deviation(arithmetic.store, y));
        out.y(r, first + i) = y;
        put(out, options, r, first + i, a, std::min(std::sqrt(variance), a.total()));
      }
    }
  }
  return out;
}

Bounded rotate(const Bounded& x, const RowMatrix& table, const AttentionConfig& config,
               const BoundOptions& options) {
  const Arithmetic& arithmetic = options.arithmetic;
  const double u = elementary_roundoff(arithmetic.projection_acc);
  const double u_table = unit_roundoff(arithmetic.cos_sin) > 0x1p-24
                             ? unit_roundoff(arithmetic.cos_sin)
                             : 0.0;  // the table is float32
  const Eigen::Index head_dim = config.head_dim, heads = x.y.cols() / head_dim;
  const Eigen::Index rotary = table.cols(), half = rotary / 2;
  const bool interleaved = config.rope.interleaved;
  const Eigen::Index side = config.rope.rotary_side == RotarySide::kLast ? head_dim - rotary : 0;

  Bounded out = x.exact() ? Bounded::zeros(x.y.rows(), x.y.cols()) : x;
  out.y = x.y;
  if (options.parts) {
    out.parts.assign(static_cast<std::size_t>(out.y.size()), {});
    for (Eigen::Index i = 0; i < out.d.size(); ++i) {
      out.parts[static_cast<std::size_t>(i)].propagation = out.d.data()[i];
    }
  }
  const auto element = [&](Eigen::Index r, Eigen::Index at, Eigen::Index ia, Eigen::Index ib,
                           double ca, double cb) {  // y = ca x[ia] + cb x[ib]; cb multiplies first
    const double pa = std::abs(ca * x.y(r, ia)), pb = std::abs(cb * x.y(r, ib));
    const double y = ca * x.y(r, ia) + cb * x.y(r, ib);
    Allowance a;
    a.operand = u_table * (pa + pb);
    a.rounding = (2.0 * u + kReferenceRoundoff) * (pa + pb);
    if (arithmetic.rope_native) a.rounding += 1.01 * rounding(arithmetic.store, pb, 0.0);
    double variance = square((u_table + 2.0 * u) * (pa + pb)) / 3.0 +
                      square(rounding_deviation(arithmetic.store, y));
    if (arithmetic.rope_native) variance += square(rounding_deviation(arithmetic.store, pb));
    if (!x.exact()) {
      a.propagation = (1.0 + u_table) * (std::abs(ca) * x.d(r, ia) + std::abs(cb) * x.d(r, ib));
      variance += square(ca * x.s(r, ia)) + square(cb * x.s(r, ib));
    }
    a.rounding += rounding(arithmetic.store, y, a.total());
    out.y(r, at) = y;
    put(out, options, r, at, a, std::sqrt(variance));
  };
  for (Eigen::Index r = 0; r < x.y.rows(); ++r) {
    for (Eigen::Index head = 0; head < heads; ++head) {
      const Eigen::Index first = head * head_dim + side;
      for (Eigen::Index j = 0; j < half; ++j) {
        const Eigen::Index i1 = first + (interleaved ? 2 * j : j);
        const Eigen::Index i2 = first + (interleaved ? 2 * j + 1 : j + half);
        const double c = table(r, 2 * j), s = table(r, 2 * j + 1);
        element(r, i1, i1, i2, c, -s);  // re = fma(a, c, -(b s))
        element(r, i2, i1, i2, s, c);   // im = fma(a, s, b c)
      }
    }
  }
  return out;
}

Bounded store_in_cache(const Bounded& x, const BoundOptions& options) {
  const Arithmetic& arithmetic = options.arithmetic;
  const ElementType type = arithmetic.cache;
  Bounded out = x;
  if (x.exact() && !arithmetic.fused_cache) {
    out.y = x.y.unaryExpr([type](double v) { return round_to(type, v); });
    return out;
  }
  if (unit_roundoff(type) <= unit_roundoff(arithmetic.store) && !arithmetic.fused_cache) return out;
  if (x.exact()) {
    out = Bounded::zeros(x.y.rows(), x.y.cols());
    out.y = x.y;
  }
  for (Eigen::Index i = 0; i < out.y.size(); ++i) {
    const double y = out.y.data()[i];
    // Converted from unrounded values: the tap itself lies one rounding of `store` beside them.
    const double before =
        out.d.data()[i] +
        (arithmetic.fused_cache && x.exact() ? unit_roundoff(arithmetic.store) * std::abs(y) : 0.0);
    out.d.data()[i] = before + rounding(type, y, before);
    out.s.data()[i] = std::sqrt(square(out.s.data()[i]) + square(rounding_deviation(type, y)));
  }
  return out;
}

}  // namespace attn::harness
