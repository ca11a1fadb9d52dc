//! A program on a device, with all buffers that it will ever need.
//!
//! Batches go in pieces of as many jobs as buffers have places for. There are two sets of buffers to lay jobs down in and to take results from: while the
//! device computes on one, the other is filled or emptied. No call makes a buffer, here or there.
//!
//! A piece: (1) parameters and jobs are written to the upload buffer, which is mapped; (2) commands copy them to where passes read them, clear the results,
//! run the passes, and copy the results to the download buffer; (3) once that is done both buffers are mapped again, and results are read.

use crate::device::{Device, Failed};
use cyclotron_shaders::{PARAMS_BYTES, Program, WORKGROUP};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu_core::SubmissionIndex;
use wgpu_core::binding_model::{
    BindGroupDescriptor, BindGroupEntry, BindGroupLayoutDescriptor, BindingResource, BufferBinding,
    PipelineLayoutDescriptor,
};
use wgpu_core::command::ComputePassDescriptor;
use wgpu_core::device::HostMap;
use wgpu_core::id::{BindGroupId, BindGroupLayoutId, BufferId, CommandEncoderId, ComputePipelineId};
use wgpu_core::pipeline::{
    ComputePipelineDescriptor, ProgrammableStageDescriptor, ShaderModuleDescriptor, ShaderModuleSource,
};
use wgpu_core::resource::{BufferDescriptor, BufferMapOperation};
use wgpu_types as wgt;
use wgpu_types::BufferUsages as Usage;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A pipeline, and threads for each job.
type Stage = (ComputePipelineId, u32);

/// Takes jobs of the form `J` with parameters of the form `P`, and gives results of the form `R`.
pub struct Kernel<P, J, R> {
    inner: Inner,
    forms: PhantomData<fn(P, J) -> R>,
}

impl<P, J, R> fmt::Debug for Kernel<P, J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("name", &self.inner.name).field("places", &self.inner.places).finish()
    }
}

impl<P, J, R> Kernel<P, J, R>
where
    P: IntoBytes + Immutable,
    J: IntoBytes + Immutable,
    R: FromBytes + IntoBytes + Immutable,
{
    /// Compiles a program and makes its buffers, for `places` jobs at once at most; fewer if the device's limits want it. The program's table is made of
    /// `table`, with `params` as in `run`.
    ///
    /// Panics: if the forms or the table are not the program's. Errors: the device cannot.
    pub fn new(
        device: &Arc<Device>,
        program: &Program,
        places: usize,
        params: impl Fn(u32, u32) -> P,
        table: &[J],
    ) -> Result<Self, Failed> {
        assert!(size_of::<P>() <= PARAMS_BYTES, "parameters have a place");
        assert_eq!(size_of::<J>(), program.job_bytes, "the form of a job");
        assert_eq!(size_of::<R>(), program.result_bytes, "the form of a result");
        assert_eq!(table.len(), program.table.map_or(0, |table| table.entries), "the entries of the table");
        device.check()?;
        let (inner, make_table) = Inner::new(device, program, places)?;
        if let Some(stage) = make_table {
            let params = params(table.len() as u32, inner.places as u32);
            let submitted = inner.submit(0, &[stage], params.as_bytes(), table.as_bytes(), table.len())?;
            inner.fetch(0, submitted, program.result_bytes, |_| ())?;
        }
        Ok(Self { inner, forms: PhantomData })
    }

    /// Does every job and writes its result to the same place in `results`; both are of one length. `params` makes parameters for so many jobs of a piece and
    /// for the number of places.
    ///
    /// Errors: the device is gone, or was before; `results` may have been written in part.
    pub fn run(&mut self, params: impl Fn(u32, u32) -> P, jobs: &[J], results: &mut [R]) -> Result<(), Failed> {
        assert_eq!(jobs.len(), results.len(), "one result a job");
        self.inner.device.check()?;
        let done = self.run_pieces(params, jobs, results);
        if done.is_err() {
            self.inner.device.fail();
        }
        done
    }

    fn run_pieces(&self, params: impl Fn(u32, u32) -> P, jobs: &[J], results: &mut [R]) -> Result<(), Failed> {
        let places = self.inner.places;
        let mut waiting: Option<(usize, SubmissionIndex, &mut [R])> = None;
        for (at, (jobs, results)) in jobs.chunks(places).zip(results.chunks_mut(places)).enumerate() {
            let (slot, params) = (at % 2, params(jobs.len() as u32, places as u32));
            let submitted =
                self.inner.submit(slot, &self.inner.stages, params.as_bytes(), jobs.as_bytes(), jobs.len())?;
            if let Some(before) = waiting.replace((slot, submitted, results)) {
                self.take(before)?;
            }
        }
        waiting.map_or(Ok(()), |last| self.take(last))
    }

    fn take(&self, (slot, submitted, results): (usize, SubmissionIndex, &mut [R])) -> Result<(), Failed> {
        let results = results.as_mut_bytes();
        self.inner.fetch(slot, submitted, results.len(), |found| results.copy_from_slice(found))
    }
}

/// What knows bytes alone.
struct Inner {
    device: Arc<Device>,
    name: &'static str,
    places: usize,
    stages: Vec<Stage>,
    slots: [Slot; 2],
    result_bytes: usize,
}

/// A set of buffers.
struct Slot {
    upload: Mapped,
    params: BufferId,
    jobs: BufferId,
    results: BufferId,
    download: Mapped,
    group: BindGroupId,
}

/// A buffer that the host maps.
struct Mapped {
    id: BufferId,
    host: HostMap,
    /// Set when it is mapped.
    is_mapped: Arc<AtomicBool>,
}

impl Inner {
    /// Also the stage that makes the table.
    fn new(device: &Arc<Device>, program: &Program, places: usize) -> Result<(Self, Option<Stage>), Failed> {
        let widest = program.scratch_bytes.iter().copied().max().unwrap_or(0).max(program.job_bytes as u64);
        let most = device.limits.max_storage_buffer_binding_size.min(device.limits.max_buffer_size) / widest;
        let table_entries = program.table.map_or(0, |table| table.entries);
        let places = places.min(most as usize).max(table_entries).next_multiple_of(WORKGROUP as usize);

        let shared: Vec<BufferId> = program
            .scratch_bytes
            .iter()
            .map(|bytes| bytes * places as u64)
            .chain(program.table.map(|table| table.entry_bytes * table.entries as u64))
            .map(|bytes| device.buffer(bytes, Usage::STORAGE, false))
            .collect::<Result<_, _>>()?;
        let layout = device.layout(4 + shared.len())?;
        let code = device.code(&program.code)?;
        let slot = || {
            let (jobs_bytes, results_bytes) =
                ((places * program.job_bytes) as u64, (places * program.result_bytes) as u64);
            let params_bytes = PARAMS_BYTES as u64;
            let params = device.buffer(params_bytes, Usage::STORAGE | Usage::COPY_DST, false)?;
            let jobs = device.buffer(jobs_bytes, Usage::STORAGE | Usage::COPY_DST, false)?;
            let results = device.buffer(results_bytes, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC, false)?;
            let upload = device.buffer(params_bytes + jobs_bytes, Usage::MAP_WRITE | Usage::COPY_SRC, true)?;
            let download = device.buffer(results_bytes, Usage::MAP_READ | Usage::COPY_DST, false)?;
            let group =
                device.group(layout, [params, code, jobs, results].into_iter().chain(shared.iter().copied()))?;
            let mapped = |id, host, is_mapped| Mapped { id, host, is_mapped: Arc::new(AtomicBool::new(is_mapped)) };
            Ok(Slot {
                upload: mapped(upload, HostMap::Write, true),
                params,
                jobs,
                results,
                download: mapped(download, HostMap::Read, false),
                group,
            })
        };
        let slots = [slot()?, slot()?];
        let compile = device.compiler(layout, &program.text)?;
        let stages = program.passes.iter().try_fold(Vec::<Stage>::new(), |mut stages, pass| {
            // An entry point that comes again is compiled once.
            let before = program.passes[..stages.len()].iter().position(|before| before.entry == pass.entry);
            let pipeline = before.map_or_else(|| compile(pass.entry), |before| Ok(stages[before].0))?;
            stages.push((pipeline, pass.threads));
            Ok::<_, Failed>(stages)
        })?;
        let make_table = program.table.map(|table| Ok((compile(table.entry)?, 1))).transpose()?;
        let inner = Self {
            device: device.clone(),
            name: program.name,
            places,
            stages,
            slots,
            result_bytes: program.result_bytes,
        };
        Ok((inner, make_table))
    }

    /// Lays jobs down in a slot and has the device run stages on them.
    fn submit(
        &self,
        slot: usize,
        stages: &[Stage],
        params: &[u8],
        jobs: &[u8],
        count: usize,
    ) -> Result<SubmissionIndex, Failed> {
        let (device, slot) = (&self.device, &self.slots[slot]);
        let (global, jobs_bytes) = (&device.global, jobs.len() as u64);
        device.write(&slot.upload, params, jobs)?;
        let (encoder, error) =
            global.device_create_command_encoder(device.id, &wgt::CommandEncoderDescriptor::default(), None);
        let recorded = fine(error).and_then(|()| {
            let params_bytes = PARAMS_BYTES as u64;
            let results_bytes = (count * self.result_bytes) as u64;
            device.copy(encoder, (slot.upload.id, 0), slot.params, params_bytes)?;
            device.copy(encoder, (slot.upload.id, params_bytes), slot.jobs, jobs_bytes)?;
            global.command_encoder_clear_buffer(encoder, slot.results, 0, Some(results_bytes)).map_err(Failed::new)?;
            device.pass(encoder, slot.group, stages, count)?;
            device.copy(encoder, (slot.results, 0), slot.download.id, results_bytes)
        });
        let (commands, error) = global.command_encoder_finish(encoder, &wgt::CommandBufferDescriptor::default(), None);
        let submitted = recorded.and_then(|()| {
            fine(error.map(|(_, error)| error))?;
            global.queue_submit(device.queue, &[commands]).map_err(|(_, error)| Failed::new(error))
        });
        global.command_buffer_drop(commands);
        global.command_encoder_drop(encoder);
        let submitted = submitted?;
        device.map(&slot.download)?;
        device.map(&slot.upload)?;
        Ok(submitted)
    }

    /// Waits for what was submitted in a slot and shows so many bytes of its results.
    fn fetch(
        &self,
        slot: usize,
        submitted: SubmissionIndex,
        bytes: usize,
        show: impl FnOnce(&[u8]),
    ) -> Result<(), Failed> {
        let (device, slot) = (&self.device, &self.slots[slot]);
        let wait = wgt::PollType::Wait { submission_index: Some(submitted), timeout: Some(device.patience) };
        device.global.device_poll(device.id, wait).map_err(Failed::new)?;
        device.read(&slot.download, bytes, show)
    }
}

/// Nothing, or the error.
fn fine(error: Option<impl fmt::Display>) -> Result<(), Failed> {
    error.map_or(Ok(()), |error| Err(Failed::new(error)))
}

impl Device {
    fn buffer(&self, size: u64, usage: Usage, mapped_at_creation: bool) -> Result<BufferId, Failed> {
        let descriptor = BufferDescriptor { label: None, size, usage, mapped_at_creation };
        let (id, error) = self.global.device_create_buffer(self.id, &descriptor, None);
        fine(error).map(|()| id)
    }

    /// A buffer that holds these words for good.
    fn code(&self, words: &[u32]) -> Result<BufferId, Failed> {
        let bytes = words.as_bytes();
        let id = self.buffer(bytes.len() as u64, Usage::STORAGE, true)?;
        let (place, length) = self.global.buffer_get_mapped_range(id, 0, None).map_err(Failed::new)?;
        assert!(length >= bytes.len() as u64, "the code has a place");
        // SAFETY: so many bytes at the place are mapped for writing until `buffer_unmap`, and nobody else knows the buffer.
        unsafe { place.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.global.buffer_unmap(id).map_err(Failed::new)?;
        Ok(id)
    }

    /// Three buffers that are read, and others that are also written.
    fn layout(&self, bindings: usize) -> Result<BindGroupLayoutId, Failed> {
        let entry = |binding: usize| wgt::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgt::ShaderStages::COMPUTE,
            ty: wgt::BindingType::Buffer {
                ty: wgt::BufferBindingType::Storage { read_only: binding < 3 },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries = (0..bindings).map(entry).collect();
        let descriptor = BindGroupLayoutDescriptor { label: None, entries: Cow::Owned(entries) };
        let (id, error) = self.global.device_create_bind_group_layout(self.id, &descriptor, None);
        fine(error).map(|()| id)
    }

    fn group(&self, layout: BindGroupLayoutId, buffers: impl Iterator<Item = BufferId>) -> Result<BindGroupId, Failed> {
        let entry = |(binding, buffer)| BindGroupEntry {
            binding: binding as u32,
            resource: BindingResource::Buffer(BufferBinding { buffer, offset: 0, size: None }),
        };
        let entries = buffers.enumerate().map(entry).collect();
        let descriptor = BindGroupDescriptor { label: None, layout, entries: Cow::Owned(entries) };
        let (id, error) = self.global.device_create_bind_group(self.id, &descriptor, None);
        fine(error).map(|()| id)
    }

    /// What makes pipelines of a text's entry points.
    fn compiler(
        &self,
        layout: BindGroupLayoutId,
        text: &str,
    ) -> Result<impl Fn(&'static str) -> Result<ComputePipelineId, Failed>, Failed> {
        let descriptor = PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: Cow::Owned(vec![Some(layout)]),
            immediate_size: 0,
        };
        let (layout, error) = self.global.device_create_pipeline_layout(self.id, &descriptor, None);
        fine(error)?;
        // Texts are this program's own, whose loops end and whose indexes lie within: checks would keep drivers from unrolling.
        let descriptor = ShaderModuleDescriptor { label: None, runtime_checks: wgt::ShaderRuntimeChecks::unchecked() };
        let source = ShaderModuleSource::Wgsl(Cow::Borrowed(text));
        let (module, error) = self.global.device_create_shader_module(self.id, &descriptor, source, None);
        fine(error)?;
        Ok(move |entry: &'static str| {
            let stage = ProgrammableStageDescriptor {
                module,
                entry_point: Some(Cow::Borrowed(entry)),
                constants: Default::default(),
                zero_initialize_workgroup_memory: false,
            };
            let descriptor = ComputePipelineDescriptor { label: None, layout: Some(layout), stage, cache: None };
            let (id, error) = self.global.device_create_compute_pipeline(self.id, &descriptor, None);
            fine(error).map(|()| id)
        })
    }

    fn copy(&self, encoder: CommandEncoderId, from: (BufferId, u64), to: BufferId, bytes: u64) -> Result<(), Failed> {
        let copied = self.global.command_encoder_copy_buffer_to_buffer(encoder, from.0, from.1, to, 0, Some(bytes));
        copied.map_err(Failed::new)
    }

    fn pass(
        &self,
        encoder: CommandEncoderId,
        group: BindGroupId,
        stages: &[Stage],
        count: usize,
    ) -> Result<(), Failed> {
        let descriptor = ComputePassDescriptor { label: None, timestamp_writes: None };
        let (mut pass, error) = self.global.command_encoder_begin_compute_pass(encoder, &descriptor);
        fine(error)?;
        self.global.compute_pass_set_bind_group(&mut pass, 0, Some(group), &[]).map_err(Failed::new)?;
        for (pipeline, threads) in stages {
            let groups = (count as u32 * threads).div_ceil(WORKGROUP);
            self.global.compute_pass_set_pipeline(&mut pass, *pipeline).map_err(Failed::new)?;
            self.global.compute_pass_dispatch_workgroups(&mut pass, groups, 1, 1).map_err(Failed::new)?;
        }
        self.global.compute_pass_end(&mut pass).map_err(Failed::new)
    }

    /// Has a buffer mapped once nothing uses it.
    fn map(&self, buffer: &Mapped) -> Result<(), Failed> {
        let is_mapped = buffer.is_mapped.clone();
        let callback = move |mapped: Result<(), _>| is_mapped.store(mapped.is_ok(), Ordering::Release);
        let operation = BufferMapOperation { host: buffer.host, callback: Some(Box::new(callback)) };
        self.global.buffer_map_async(buffer.id, 0, None, operation).map(drop).map_err(Failed::new)
    }

    /// Writes both to a mapped buffer, the jobs behind the place of parameters, and gives it back.
    fn write(&self, buffer: &Mapped, params: &[u8], jobs: &[u8]) -> Result<(), Failed> {
        if !buffer.is_mapped.swap(false, Ordering::AcqRel) {
            return Err(Failed("a buffer to write to is not mapped".to_owned()));
        }
        let bytes = (PARAMS_BYTES + jobs.len()) as u64;
        let (place, length) = self.global.buffer_get_mapped_range(buffer.id, 0, Some(bytes)).map_err(Failed::new)?;
        assert!(params.len() <= PARAMS_BYTES && length >= bytes, "parameters and jobs have a place");
        // SAFETY: so many bytes at the place are mapped for writing until `buffer_unmap`, and nobody else has them: the buffer is this kernel's, which
        // only one caller runs at a time.
        unsafe {
            place.as_ptr().copy_from_nonoverlapping(params.as_ptr(), params.len());
            place.as_ptr().add(PARAMS_BYTES).copy_from_nonoverlapping(jobs.as_ptr(), jobs.len());
        }
        self.global.buffer_unmap(buffer.id).map_err(Failed::new)
    }

    /// Shows the first bytes of a mapped buffer and gives it back.
    fn read(&self, buffer: &Mapped, bytes: usize, show: impl FnOnce(&[u8])) -> Result<(), Failed> {
        if !buffer.is_mapped.swap(false, Ordering::AcqRel) {
            return Err(Failed("a buffer to read from is not mapped".to_owned()));
        }
        let (place, length) =
            self.global.buffer_get_mapped_range(buffer.id, 0, Some(bytes as u64)).map_err(Failed::new)?;
        assert!(length >= bytes as u64, "results have a place");
        // SAFETY: so many bytes at the place are mapped for reading until `buffer_unmap`, the device has written them, and the slice ends before.
        show(unsafe { std::slice::from_raw_parts(place.as_ptr(), bytes) });
        self.global.buffer_unmap(buffer.id).map_err(Failed::new)
    }
}
