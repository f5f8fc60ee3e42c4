#include "tests/unit/planner/exact_plan.h"

#include <coin/Cbc_C_Interface.h>

#include <algorithm>
#include <cmath>

namespace eclip::planner {
namespace {

/// A linear program, column by column, in the form that CBC takes.
class Program {
 public:
  int add_column(double cost, bool is_integer) {
    costs_.push_back(cost);
    integer_.push_back(is_integer);
    columns_.emplace_back();
    return static_cast<int>(costs_.size()) - 1;
  }
  int add_row(double lower, double upper) {
    lower_.push_back(lower);
    upper_.push_back(upper);
    return static_cast<int>(lower_.size()) - 1;
  }
  void set(int row, int column, double factor) {
    columns_[static_cast<std::size_t>(column)].push_back({row, factor});
  }
  void add_cost(int column, double cost) { costs_[static_cast<std::size_t>(column)] += cost; }

  /// The columns' values; empty when no optimum was proven.
  std::vector<double> solve(double& value) const {
    std::vector<CoinBigIndex> start{0};
    std::vector<int> rows;
    std::vector<double> factors;
    for (const auto& column : columns_) {
      for (const Entry& entry : column) {
        rows.push_back(entry.row);
        factors.push_back(entry.factor);
      }
      start.push_back(static_cast<CoinBigIndex>(rows.size()));
    }
    const std::vector<double> zeros(costs_.size(), 0);
    const std::vector<double> ones(costs_.size(), 1);
    Cbc_Model* model = Cbc_newModel();
    Cbc_setParameter(model, "log", "0");
    Cbc_loadProblem(model, static_cast<int>(costs_.size()), static_cast<int>(lower_.size()),
                    start.data(), rows.data(), factors.data(), zeros.data(), ones.data(),
                    costs_.data(), lower_.data(), upper_.data());
    for (std::size_t i = 0; i < integer_.size(); ++i)
      if (integer_[i]) Cbc_setInteger(model, static_cast<int>(i));
    Cbc_solve(model);
    std::vector<double> values;
    if (Cbc_isProvenOptimal(model)) {
      const double* solution = Cbc_getColSolution(model);
      values.assign(solution, solution + costs_.size());
      value = Cbc_getObjValue(model);
    }
    Cbc_deleteModel(model);
    return values;
  }

 private:
  struct Entry {
    int row;
    double factor;
  };
  std::vector<double> costs_;
  std::vector<bool> integer_;
  std::vector<std::vector<Entry>> columns_;
  std::vector<double> lower_;
  std::vector<double> upper_;
};

/// A group of a worker on every stream: what it costs and how it keeps others waiting.
struct GroupCosts {
  std::size_t worker = 0;
  std::size_t first = 0;
  std::size_t end = 0;
  std::vector<double> alone_us;            // [stream]
  std::vector<CostModel::StreamUse> uses;  // [stream]
  std::vector<int> columns;                // [stream]
};

std::vector<GroupCosts> costs_of(const CostTables& tables, const std::vector<Groups>& groups) {
  std::vector<GroupCosts> all;
  for (std::size_t w = 0; w < groups.size(); ++w)
    for (std::size_t g = 0; g < groups[w].size(); ++g) {
      GroupCosts group{.worker = w, .first = groups[w][g]};
      group.end = g + 1 < groups[w].size() ? groups[w][g + 1] : tables.class_of_kernel(w).size();
      for (std::size_t s = 0; s < tables.streams(); ++s) {
        CostModel::StreamUse use{.stream = static_cast<std::uint32_t>(s)};
        double alone_us = 0;
        for (std::size_t k = group.first; k < group.end; ++k) {
          alone_us += tables.costs(w, s)[k].alone_us;
          use.add(tables.costs(w, s)[k], 1);
        }
        group.alone_us.push_back(alone_us);
        group.uses.push_back(use);
      }
      all.push_back(std::move(group));
    }
  return all;
}

/// How long kernels of `group` on stream s wait for those of `other` on stream t, whose requests
/// take other_us.
double wait_us(const CostTables& tables, const GroupCosts& group, std::size_t s,
               const GroupCosts& other, std::size_t t, double other_us) {
  if (tables.overlap(s, t) == 0) return 0;
  double sum = 0;
  for (std::size_t k = group.first; k < group.end; ++k) {
    const KernelCost& cost = tables.costs(group.worker, s)[k];
    const double beside_us = tables.beside_us(group.worker, s, t)[k];
    const double loss = beside_us == CostTables::never_us ? 1 : 1 - cost.alone_us / beside_us;
    sum += loss * other.uses[t].obstacles[cost.level].residual_us2 / other_us;
  }
  return sum;
}

}  // namespace

ExactPlan exact_plan(const model::GpuDescription& gpu, const CostTables& tables,
                     const std::vector<Groups>& groups, std::span<const double> solo_us,
                     const CostOptions& cost) {
  const std::size_t streams = tables.streams();
  const auto workers = static_cast<double>(groups.size());
  const auto weight = [&](std::size_t w) { return 1 / (workers * solo_us[w]); };
  std::vector<GroupCosts> all = costs_of(tables, groups);
  Program program;
  double constant = 0;
  for (std::size_t w = 0; w < groups.size(); ++w)
    constant += weight(w) * (cost.request_overhead_us +
                             static_cast<double>(tables.class_of_kernel(w).size() - 1) *
                                 gpu.timing.launch_gap_us);
  // Each group is on one stream.
  for (GroupCosts& group : all) {
    const int one = program.add_row(1, 1);
    for (std::size_t s = 0; s < streams; ++s) {
      group.columns.push_back(program.add_column(weight(group.worker) * group.alone_us[s], true));
      program.set(one, group.columns[s], 1);
    }
  }
  // Entering a stream between groups is a switch.
  const double switch_us = gpu.timing.barrier_us - gpu.timing.launch_gap_us;
  for (std::size_t g = 1; g < all.size(); ++g) {
    if (all[g].worker != all[g - 1].worker) continue;
    for (std::size_t s = 0; s < streams; ++s) {
      const int enters = program.add_column(weight(all[g].worker) * switch_us, false);
      const int row = program.add_row(0, 2);  // enters >= here - before
      program.set(row, enters, 1);
      program.set(row, all[g].columns[s], -1);
      program.set(row, all[g - 1].columns[s], 1);
    }
  }
  // Pairs of groups of different workers: a column for each pair of streams.
  for (std::size_t a = 0; a < all.size(); ++a)
    for (std::size_t b = a + 1; b < all.size(); ++b) {
      if (all[a].worker == all[b].worker) continue;
      std::vector<int> row_of_a;
      std::vector<int> row_of_b;
      for (std::size_t s = 0; s < streams; ++s) {
        row_of_a.push_back(program.add_row(0, 0));
        program.set(row_of_a[s], all[a].columns[s], -1);
        row_of_b.push_back(program.add_row(0, 0));
        program.set(row_of_b[s], all[b].columns[s], -1);
      }
      for (std::size_t s = 0; s < streams; ++s)
        for (std::size_t t = 0; t < streams; ++t) {
          const double wait =
              weight(all[a].worker) *
                  wait_us(tables, all[a], s, all[b], t, solo_us[all[b].worker]) +
              weight(all[b].worker) * wait_us(tables, all[b], t, all[a], s, solo_us[all[a].worker]);
          const int both = program.add_column(wait, false);
          program.set(row_of_a[s], both, 1);
          program.set(row_of_b[t], both, 1);
        }
    }
  ExactPlan plan;
  const std::vector<double> values = program.solve(plan.value);
  plan.proven = !values.empty();
  if (!plan.proven) return plan;
  plan.value += constant;
  plan.streams.resize(groups.size());
  for (const GroupCosts& group : all)
    for (std::size_t s = 0; s < streams; ++s)
      if (values[static_cast<std::size_t>(group.columns[s])] > 0.5)
        plan.streams[group.worker].push_back(static_cast<std::uint32_t>(s));
  return plan;
}

}  // namespace eclip::planner
